"""Counting what code does on a device's CPU, without the device: QEMU user mode in an ARM user-space.

Nothing here is imported on the device. `guest.Guest` runs Python programs on an emulated aarch64 (or armv7)
with the real wheels; `counting` counts their instructions, exactly and repeatably.
"""
