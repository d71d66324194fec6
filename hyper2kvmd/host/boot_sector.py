"""The program that KVM has to run before a guest is started in it: assembly source and machine code."""

from __future__ import annotations

SECTOR = 512
LOADED_AT = 0x7C00
"""Where a BIOS puts a boot sector."""
EXIT_PORT = 0xF4
PROBE_VALUE = 0x21
"""What the program writes to the port at its end."""
SOURCE = f"""
.code16
cli
cld
xorl %eax, %eax
movw %ax, %ds
movw %ax, %es
movw $0x1000, %di               # clear 0x1000 to 0x5000
movw $0x2000, %cx
rep stosw
movw $0x2003, 0x1000            # page tables that map the first 2 MiB to themselves
movw $0x3003, 0x2000
movw $0x0083, 0x3000
movw $0x1000, %ax
movl %eax, %cr3
movw $0x0620, %ax               # PAE, and SSE allowed
movl %eax, %cr4
movl $0xc0000080, %ecx          # EFER: enable long mode
rdmsr
orw $0x0100, %ax
wrmsr
lgdtl table
movl $0x80000011, %eax          # paging and protected mode: long mode begins
movl %eax, %cr0
ljmpw $8, $long
.code64
long:
xorl %eax, %eax                 # memory holds 0, and becomes the value
xorl %edx, %edx
xorl %ecx, %ecx
movl ${PROBE_VALUE:#x}, %ebx
movl $0x4000, %edi
lock cmpxchg16b (%rdi)
jnz end
movdqa (%rdi), %xmm0            # double it, halve it
paddq %xmm0, %xmm0
psrlq $1, %xmm0
movq %xmm0, %rax
movw ${EXIT_PORT:#x}, %dx
outb %al, %dx
end:
hlt
jmp end
descriptors:
.quad 0
.quad 0x00209a0000000000        # a code segment of long mode
table:
.word . - descriptors - 1
.long descriptors
"""
"""For GNU as, with the origin LOADED_AT. KVM's instruction emulator (Linux, arch/x86/kvm/emulate.c) knows neither
`cmpxchg16b` nor `paddq` and `psrlq`: they run only in a KVM that lets the processor execute the kernels of its guests.
"""
CODE = bytes.fromhex("""
    fafc6631c08ed88ec0bf0010b90020f3abc70600100320c70600200330c70600
    308300b800100f22d8b820060f22e066b9800000c00f320d00010f30660f0116
    917c66b8110000800f22c0ea507c080031c031d231c9bb21000000bf00400000
    f0480fc70f7517660f6f07660fd4c0660f73d00166480f7ec066baf400eef4eb
    fd000000000000000000000000009a20000f00817c0000
""")


def boot_sector(code: bytes) -> bytes:
    """A BIOS boots from it."""
    return code.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
