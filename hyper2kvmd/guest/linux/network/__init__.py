"""The guest's network configuration, read as text: which interfaces it names, and by what it knows their cards.

Each format has one function that visits a text: it shows every selector (what picks a card: a name, a MAC address, a
driver, a place on the PCI bus) to a callback, and returns the text with the conditions that the callback's answer
calls for. Asked by `survey`, the callback only listens; asked by a repair, it answers with the card. So what is read
and what is rewritten can never be two different things.

Addresses, routes and name servers are never touched. The cards of the source machine belong to machines/.
"""

from __future__ import annotations
