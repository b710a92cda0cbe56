# What every boot loader leaves although no protocol promises it: kernels push to its stack before they have their own, and fill
# an IDT with gates to its code segment without ever loading a descriptor table.

.set VEC_TEST, 0x40

guest_main:
    plan 5
    check_eq "the loader's stack keeps what is pushed", boot_stack, $_start
    movl $VEC_TEST, %eax
    movl $on_test, %edx
    call gate_set
    movw boot_code, %ax
    movw %ax, idt + 8 * VEC_TEST + 2
    movw %ax, far_pointer + 4
    lgdt boot_table
    ljmp *far_pointer
.globl in_loaders_segment
in_loaders_segment:
    movw %cs, %ax
    xorw boot_code, %ax
    movzwl %ax, %ebx
    movw boot_data, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    int $VEC_TEST                       # through a gate to the loader's segment
    pushl entered_cs
    lgdt gdt_pointer                    # back to the runtime's own
    ljmp $SEL_KCODE, $1f
1:  movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    popl %esi
    check_eq "a far jump to the loader's code segment", %ebx, $0
    check_eq "... where a gate leads, too", %esi, boot_code
    check_eq "... and back", entered, $1
    movl boot_table, %eax
    andl $0xffff, %eax
    movzwl boot_code, %edx
    addl $7, %edx
    cmpl %edx, %eax
    setae %al
    movzbl %al, %eax
    check_eq "the table reaches as far", %eax, $1
    ret

on_test:
    incl entered
    pushl %eax
    movw %cs, %ax
    movzwl %ax, %eax
    movl %eax, entered_cs
    popl %eax
    iret

.data
.balign 4
far_pointer: .long in_loaders_segment
    .word 0

.bss
.balign 4
entered: .space 4
entered_cs: .space 4
