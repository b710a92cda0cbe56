# Port I/O: registers of the PICs, the PIT and the UART, and the string forms INS and OUTS.

.set SCRATCH, COM1 + 7
.set WINDOW, 0x40000000

guest_main:
    plan 38
    call pics
    call pit
    call uart
    call strings
    ret

pics:
    call pic_init
    movb $0xa5, %al
    outb %al, $PIC1 + 1
    movb $0x5a, %al
    outb %al, $PIC2 + 1
    xorl %eax, %eax
    inb $PIC1 + 1, %al
    check_eq "PIC 1: the mask reads back", %eax, $0xa5
    inb $PIC2 + 1, %al
    check_eq "PIC 2: the mask reads back", %eax, $0x5a
    movb $0xff, %al
    outb %al, $PIC1 + 1
    outb %al, $PIC2 + 1

    # A tick, seen in the IRR, then in the ISR, until the end of interrupt.
    hook VEC_IRQ0, look_at_isr
    movl $1193, %eax
    call pit_start
    call wait_irr
    movl $0, isr
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    sti
1:  cmpl $0, isr
    je 1b
    cli
    movb $0xff, %al
    outb %al, $PIC1 + 1
    check_eq "PIC 1: in the handler, the ISR has IRQ 0", isr, $1
    check_eq "... after the end of interrupt it has not", isr_after, $0
    # A specific end of interrupt.
    movl $2, isr
    hook VEC_IRQ0, specific_eoi
    call wait_irr
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    sti
1:  cmpl $2, isr
    je 1b
    cli
    movb $0xff, %al
    outb %al, $PIC1 + 1
    check_eq "PIC 1: a specific end of interrupt", isr_after, $0
    # Without an end of interrupt no second one comes.
    movl $0, ticks
    hook VEC_IRQ0, no_eoi
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    sti
1:  cmpl $0, ticks
    je 1b
    call wait_irr
    nop
    cli
    check_eq "PIC 1: no further interrupt before the end of the last", ticks, $1
    movb $0x20, %al
    outb %al, $PIC1
    sti
    nop
    nop
    cli
    movb $0xff, %al
    outb %al, $PIC1 + 1
    check_eq "... but then", ticks, $2
    # Other vectors.
    movb $0x11, %al
    outb %al, $PIC1
    movb $0x60, %al
    outb %al, $PIC1 + 1
    movb $4, %al
    outb %al, $PIC1 + 1
    movb $3, %al                        # automatic end of interrupt
    outb %al, $PIC1 + 1
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    movl $0, ticks
    hook 0x60, count_only
    sti
1:  cmpl $3, ticks
    jb 1b
    cli
    xorl %eax, %eax
    cmpl $3, ticks
    sete %al
    check_eq "PIC 1: vector 0x60, automatic end of interrupt", %eax, $1
    call pic_init
    ret

look_at_isr:
    call read_isr
    movl %eax, isr
    movb $0x20, %al
    outb %al, $PIC1
    call read_isr
    movl %eax, isr_after
    movb $0xff, %al
    outb %al, $PIC1 + 1
    ret
specific_eoi:
    movl $1, isr
    movb $0x60, %al                     # of IRQ 0
    outb %al, $PIC1
    call read_isr
    movl %eax, isr_after
    movb $0xff, %al
    outb %al, $PIC1 + 1
    ret
no_eoi:
count_only:
    incl ticks
    ret
read_isr:
    movb $0x0b, %al
    outb %al, $PIC1
    inb $PIC1, %al
    andl $1, %eax
    ret
# Waits for a request of IRQ 0.
wait_irr:
    movb $0x0a, %al
    outb %al, $PIC1
1:  inb $PIC1, %al
    testb $1, %al
    jz 1b
    ret

pit:
    # Latched counts fall, in both access modes, and stay below the divisor.
    movl $50000, %eax
    call pit_start
    call latch
    movl %eax, %ebx
    call latch
    movl %eax, %esi
    xorl %eax, %eax
    cmpl $50000, %ebx
    setbe %al
    check_eq "PIT: the count is not above the divisor", %eax, $1
    movb $0, %al
    outb %al, $PIT + 3                  # latch; then the count must not move while it is read
    movl $10000, %ecx
1:  loop 1b
    inb $PIT, %al
    movzbl %al, %ebx
    inb $PIT, %al
    movb %al, %bh
    xorl %eax, %eax
    cmpl $50000, %ebx
    setbe %al
    check_eq "PIT: a latched count can be read late", %eax, $1
    # The read-back command: status of channel 0.
    movb $0xe2, %al
    outb %al, $PIT + 3
    inb $PIT, %al
    andl $0x3f, %eax
    check_eq "PIT: read-back shows access and mode", %eax, $0x34
    # Channel 2 through port 0x61: its output rises at the end, in mode 0.
    inb $0x61, %al
    andb $0xfc, %al
    outb %al, $0x61
    movb $0xb0, %al
    outb %al, $PIT + 3
    movb $0x00, %al
    outb %al, $PIT + 2
    movb $0x10, %al
    outb %al, $PIT + 2
    inb $0x61, %al
    andl $0x20, %eax
    check_eq "PIT channel 2: its output is low at first", %eax, $0
    inb $0x61, %al
    orb $1, %al
    outb %al, $0x61
    movl $100000000, %ecx
1:  inb $0x61, %al
    testb $0x20, %al
    loopz 1b
    andl $0x20, %eax
    check_eq "... and high at last", %eax, $0x20
    ret

latch:
    xorl %eax, %eax
    outb %al, $PIT + 3
    inb $PIT, %al
    movb %al, %ah
    inb $PIT, %al
    xchgb %al, %ah
    ret

uart:
    xorl %eax, %eax
    movw $SCRATCH, %dx
    movb $0xc3, %al
    outb %al, %dx
    inb %dx, %al
    check_eq "UART: scratch register", %eax, $0xc3
    movw $COM1 + 3, %dx
    inb %dx, %al
    check_eq "UART: line control", %eax, $0x03
    movb $0x83, %al
    outb %al, %dx
    movw $COM1, %dx
    inb %dx, %al
    movzbl %al, %ebx
    movw $COM1 + 1, %dx
    inb %dx, %al
    movzbl %al, %esi
    movw $COM1 + 3, %dx
    movb $0x03, %al
    outb %al, %dx
    check_eq "UART: divisor, low", %ebx, $0x01
    check_eq "UART: divisor, high", %esi, $0x00
    xorl %eax, %eax
    movw $COM1 + 1, %dx
    inb %dx, %al
    check_eq "UART: interrupts are off", %eax, $0x00
    movw $COM1 + 4, %dx
    inb %dx, %al
    check_eq "UART: modem control", %eax, $0x03
    movw $COM1 + 2, %dx
    inb %dx, %al
    check_eq "UART: FIFO on, nothing pending", %eax, $0xc1
    # Loopback: what is sent comes back, and does not leave.
    call drain
    movw $COM1 + 4, %dx
    movb $0x10, %al
    outb %al, %dx
    movw $COM1, %dx
    movb $'X', %al
    outb %al, %dx
    movw $COM1 + 5, %dx
    movl $1000000, %ecx
1:  inb %dx, %al
    testb $1, %al
    loopz 1b
    andl $1, %eax
    movl %eax, %esi
    movw $COM1, %dx
    inb %dx, %al
    movzbl %al, %ebx
    movw $COM1 + 5, %dx
    inb %dx, %al
    andl $1, %eax
    movl %eax, %edi
    movw $COM1 + 4, %dx
    movb $0x03, %al
    outb %al, %dx
    check_eq "UART loopback: a byte is there", %esi, $1
    check_eq "... the one that was sent", %ebx, $'X'
    check_eq "... and no other", %edi, $0
    # The transmitter's interrupt, on IRQ 4.
    movl $0, ticks
    hook VEC_IRQ0 + 4, on_uart
    call drain
    movb $0xef, %al
    outb %al, $PIC1 + 1
    movw $COM1 + 4, %dx
    movb $0x0b, %al                     # OUT2 lets interrupts through
    outb %al, %dx
    sti
    movw $COM1 + 1, %dx
    movb $0x02, %al
    outb %al, %dx
    movl $1000000, %ecx
1:  cmpl $0, ticks
    loope 1b
    cli
    movb $0, %al
    movw $COM1 + 1, %dx
    outb %al, %dx
    movw $COM1 + 4, %dx
    movb $0x03, %al
    outb %al, %dx
    movb $0xff, %al
    outb %al, $PIC1 + 1
    check_eq "UART: IRQ 4 when the transmitter is empty", ticks, $1
    check_eq "... with its reason", isr, $0xc2
    ret

on_uart:
    incl ticks
    movw $COM1 + 2, %dx
    xorl %eax, %eax
    inb %dx, %al
    movl %eax, isr
    movb $0x20, %al
    outb %al, $PIC1
    ret

# Waits until everything has left the UART.
drain:
    movw $COM1 + 5, %dx
1:  inb %dx, %al
    testb $0x40, %al
    jz 1b
    xorl %eax, %eax
    ret

.bss
.balign 4
isr: .space 4
isr_after: .space 4
buffer: .space 16
