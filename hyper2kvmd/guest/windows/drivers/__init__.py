"""virtio drivers for Windows: where they come from, which ones fit a guest, their signatures, and their records.

Everything here reads untrusted bytes: an ISO or a folder of a submitter, with INF, PE and catalogue files. Each reader
has limits, and raises MigrationFailed only. Nothing of a driver is executed.
"""
