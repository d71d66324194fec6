"""The guest's network configuration, read as text: its interfaces, and the selectors of their cards.

Each format has one function that passes every selector in a text (a name, a MAC address, a driver, a place on the PCI
bus) to a callback. That of `survey` only records them; that of a repair returns the card, and the function returns the
text with conditions for this card, so that reading and rewriting cannot differ.

Addresses, routes and name servers are never touched; the cards of the source machine belong to machines/.
"""

from __future__ import annotations
