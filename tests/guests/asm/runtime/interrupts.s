# The PIC pair and the PIT.

.text
# Remaps the PICs to VEC_IRQ0.. and masks everything.
.globl pic_init
pic_init:
    pushl %eax
    movb $0x11, %al                     # ICW1: edge, cascade, ICW4 follows
    outb %al, $PIC1
    outb %al, $PIC2
    movb $VEC_IRQ0, %al
    outb %al, $PIC1 + 1
    movb $VEC_IRQ0 + 8, %al
    outb %al, $PIC2 + 1
    movb $4, %al                        # ICW3: the second one hangs on input 2
    outb %al, $PIC1 + 1
    movb $2, %al
    outb %al, $PIC2 + 1
    movb $1, %al                        # ICW4: 8086
    outb %al, $PIC1 + 1
    outb %al, $PIC2 + 1
    movb $0xff, %al
    outb %al, $PIC1 + 1
    outb %al, $PIC2 + 1
    popl %eax
    ret

# AX: divisor. Starts PIT channel 0 as a rate generator.
.globl pit_start
pit_start:
    pushl %eax
    movb $0x34, %al
    outb %al, $PIT + 3
    popl %eax
    outb %al, $PIT
    pushl %eax
    movb %ah, %al
    outb %al, $PIT
    popl %eax
    ret

# Long enough for a tick of 100 Hz: 30 ms of channel 2, polled through port 0x61.
.globl wait_long
wait_long:
    pushl %eax
    pushl %ecx
    inb $0x61, %al
    andb $0xfc, %al
    orb $0x01, %al                      # gate on, speaker off
    outb %al, $0x61
    movb $0xb0, %al                     # channel 2, mode 0
    outb %al, $PIT + 3
    movb $(35795 & 0xff), %al
    outb %al, $PIT + 2
    movb $(35795 >> 8), %al
    outb %al, $PIT + 2
1:  movl $25000, %ecx                   # each look is an exit under a hypervisor
2:  loop 2b
    inb $0x61, %al
    testb $0x20, %al
    jz 1b
    popl %ecx
    popl %eax
    ret

# A hook for IRQ0: counts and acknowledges.
.globl on_tick
on_tick:
    incl ticks
    movb $0x20, %al
    outb %al, $PIC1
    ret

.bss
.balign 4
.globl ticks
ticks: .space 4
