# Multiboot header, and the way into the upper quarter of the address space.
#
# A symbol of the kernel is never the displacement of an indexed operand: in a 64-bit object such a displacement is
# signed, and the linker refuses addresses above 2 GiB there.
#
# Functions take arguments in EAX, EDX and ECX and return in EAX; other registers are preserved.

.set KERNEL_BASE, 0xc0000000            # linear address of physical address 0, once paging is on

.set SEL_KCODE, 0x08
.set SEL_KDATA, 0x10
.set SEL_UCODE, 0x1b
.set SEL_UDATA, 0x23
.set SEL_TSS,   0x28

.set PTE_P, 1
.set PTE_W, 2
.set PTE_U, 4

.macro function name
    .globl \name
    .type \name, @function
\name:
.endm

.section .multiboot, "a"
.balign 4
    .long 0x1badb002
    .long 0x00000003
    .long -(0x1badb002 + 0x00000003)

# Runs at its physical address: maps the first 4 MiB where they are and at KERNEL_BASE, and turns paging on.
.section .boot, "ax"
function _start
    cli
    cld
    movl $boot_table - KERNEL_BASE, %edi
    movl $PTE_P | PTE_W, %eax
    movl $1024, %ecx
1:  stosl
    addl $4096, %eax
    loop 1b
    movl $boot_directory - KERNEL_BASE, %edi
    movl $(boot_table - KERNEL_BASE) + PTE_P + PTE_W, %eax
    movl %eax, (%edi)
    movl %eax, (KERNEL_BASE >> 20)(%edi)
    movl %edi, %cr3
    movl %cr0, %eax
    orl $0x80010000, %eax               # PG, WP
    movl %eax, %cr0
    movl $kernel_main, %eax
    movl $kernel_stack_top, %esp
    jmp *%eax

.bss
.balign 4096
.globl boot_directory
boot_directory: .space 4096
.globl boot_table
boot_table: .space 4096
kernel_stack: .space 4096
.globl kernel_stack_top
kernel_stack_top:
