# A triple fault: the machine resets.

guest_main:
    plan 1
    movl $1, %eax
    call tap_open
    say "a triple fault follows\n"
    movw $COM1 + 5, %dx
1:  inb %dx, %al                        # let the last byte out
    testb $0x40, %al
    jz 1b
    lidt nothing
    ud2

.section .rodata
nothing: .word 0
    .long 0
