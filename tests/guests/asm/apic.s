# Local APIC and I/O APIC: priorities, interrupts to itself, the timer, redirection of the PIT and the serial port, NMI.
# Only counts and orders that do not depend on speed are printed.

.set LAPIC, 0xfee00000
.set L_ID, LAPIC + 0x20
.set L_VERSION, LAPIC + 0x30
.set L_TPR, LAPIC + 0x80
.set L_PPR, LAPIC + 0xa0
.set L_EOI, LAPIC + 0xb0
.set L_LDR, LAPIC + 0xd0
.set L_DFR, LAPIC + 0xe0
.set L_SVR, LAPIC + 0xf0
.set L_ISR, LAPIC + 0x100
.set L_IRR, LAPIC + 0x200
.set L_ICR, LAPIC + 0x300
.set L_ICR_HIGH, LAPIC + 0x310
.set L_TIMER, LAPIC + 0x320
.set L_LINT0, LAPIC + 0x350
.set L_LINT1, LAPIC + 0x360
.set L_INITIAL, LAPIC + 0x380
.set L_CURRENT, LAPIC + 0x390
.set L_DIVIDE, LAPIC + 0x3e0
.set MASKED, 0x10000
.set PERIODIC, 0x20000
.set TO_SELF, 0x40000
.set TO_ALL, 0x80000
.set DELIVER_NMI, 0x400
.set LOGICAL, 0x800

.set IOAPIC, 0xfec00000
.set IO_WINDOW, IOAPIC + 0x10
.set LEVEL, 0x8000

.set VEC_A, 0x41
.set VEC_B, 0x51
.set VEC_C, 0x61
.set VEC_TIMER, 0x71
.set VEC_PIT, 0x81
.set VEC_SERIAL, 0x91

# lset register, value: writes a register of the local APIC (or of memory: the address is absolute).
.macro lset register:req, value:req
    movl $\register, %edx
    movl $\value, %eax
    movl %eax, (%edx)
.endm
# lget register: reads it into EAX.
.macro lget register:req
    movl $\register, %edx
    movl (%edx), %eax
.endm
# A handler that notes its vector in `order`.
.macro noting name:req, vector:req
\name:
    shll $8, order
    orl $\vector, order
    incl arrived
    lset L_EOI, 0
    ret
.endm

guest_main:
    plan 37
    movl $0x1b, %ecx
    rdmsr
    andl $0x900, %eax
    check_eq "IA32_APIC_BASE: on, bootstrap processor", %eax, $0x900
    lget L_VERSION
    movzbl %al, %ecx
    shrl $4, %ecx
    check_eq "the version says integrated", %ecx, $1
    lset L_SVR, 0x1ff
    lset L_LINT0, MASKED
    lset L_LINT1, MASKED
    lset L_TPR, 0
    hook VEC_A, on_a
    hook VEC_B, on_b
    hook VEC_C, on_c
    hook 255, on_spurious               # a higher TPR may leave one
    call self_interrupts
    call priorities
    call destinations
    call timer
    call virtual_wire
    call redirection
    call level
    call nmi
    ret

self_interrupts:
    lset L_ICR, TO_SELF | VEC_A
    lget L_IRR + 0x20
    check_eq "a self-IPI with IF=0 waits in IRR", %eax, $2
    check_eq "... and is not delivered", arrived, $0
    sti
    nop
    cli
    check_eq "with IF=1 it comes", order, $VEC_A
    lget L_IRR + 0x20
    check_eq "... and leaves IRR", %eax, $0
    lget L_ISR + 0x20
    check_eq "... and after EOI ISR", %eax, $0
    lset L_ICR, TO_SELF | VEC_A
    lset L_ICR, TO_SELF | VEC_A
    sti
    nop
    nop
    cli
    check_eq "two requests of one vector are one", arrived, $2
    ret

priorities:
    movl $0, order
    lset L_ICR, TO_SELF | VEC_B
    lset L_ICR, TO_SELF | VEC_C
    lset L_ICR, TO_SELF | VEC_A
    sti
    nop
    nop
    nop
    cli
    check_eq "the highest vector comes first", order, $(VEC_C << 16 | VEC_B << 8 | VEC_A)
    lset L_TPR, 0x50
    movl $0, order
    lset L_ICR, TO_SELF | VEC_B
    lset L_ICR, TO_SELF | VEC_C
    sti
    nop
    nop
    cli
    check_eq "TPR 0x50 holds class 5 back, not 6", order, $VEC_C
    sti
    lset L_TPR, 0x4f
    jmp 1f                              # QEMU looks at interrupts where a block of code ends
1:  cli
    check_eq "a lower TPR lets it through", order, $(VEC_C << 8 | VEC_B)
    lset L_TPR, 0
    hook VEC_B, nest
    movl $0, order
    lset L_ICR, TO_SELF | VEC_B
    sti
    nop
    nop
    cli
    check_eq "inside class 5: class 6 interrupts, class 4 waits", order, $(VEC_C << 16 | VEC_B << 8 | VEC_A)
    check_eq "... PPR is the class in service", seen_ppr, $0x50
    check_eq "... ISR shows it", seen_isr, $0x20000
    hook VEC_B, on_b
    ret

# In service: lets others in.
nest:
    lget L_PPR
    movl %eax, seen_ppr
    lget L_ISR + 0x20
    movl %eax, seen_isr
    lset L_ICR, TO_SELF | VEC_A
    lset L_ICR, TO_SELF | VEC_C
    sti
    nop
    nop
    cli
    jmp on_b

destinations:
    movl $0, arrived
    lget L_ID
    andl $0xff000000, %eax
    movl $L_ICR_HIGH, %edx
    movl %eax, (%edx)
    lset L_ICR, VEC_A
    call take
    check_eq "physical destination: own ID", arrived, $1
    lset L_ICR_HIGH, 0xff000000
    lset L_ICR, VEC_A
    call take
    check_eq "physical destination: all", arrived, $2
    lset L_ICR_HIGH, 0x07000000
    lset L_ICR, VEC_A
    call take
    check_eq "physical destination: nobody", arrived, $2
    lset L_ICR, TO_ALL | VEC_A
    call take
    check_eq "shorthand: all", arrived, $3
    lset L_ICR, TO_ALL | TO_SELF | VEC_A
    call take
    check_eq "shorthand: all but self", arrived, $3
    lset L_DFR, 0xffffffff
    lset L_LDR, 0x02000000
    lset L_ICR_HIGH, 0x06000000
    lset L_ICR, LOGICAL | VEC_A
    call take
    check_eq "logical destination: in the set", arrived, $4
    lset L_ICR_HIGH, 0x05000000
    lset L_ICR, LOGICAL | VEC_A
    call take
    check_eq "logical destination: not in the set", arrived, $4
    ret

# Lets what waits in.
take:
    sti
    nop
    nop
    cli
    ret

timer:
    hook VEC_TIMER, on_timer
    lset L_DIVIDE, 0b1011
    lset L_TIMER, MASKED | VEC_TIMER
    lset L_INITIAL, 1000000
    lget L_CURRENT
    movl %eax, %ebx
1:  lget L_CURRENT
    cmpl %ebx, %eax
    je 1b
    setb %al
    movzbl %al, %eax
    check_eq "the current count goes down", %eax, $1
2:  lget L_CURRENT
    testl %eax, %eax
    jnz 2b
    sti
    nop
    cli
    check_eq "masked: it ends and nothing comes", timer_ticks, $0
    lset L_TIMER, VEC_TIMER
    lset L_INITIAL, 100000
    sti
3:  cmpl $0, timer_ticks
    je 3b
    movl $200000, %ecx
4:  pause
    loop 4b
    cli
    check_eq "one shot: one tick", timer_ticks, $1
    lget L_CURRENT
    check_eq "... and the count stays 0", %eax, $0
    movl $0, timer_ticks
    lset L_TIMER, PERIODIC | VEC_TIMER
    lset L_INITIAL, 3000000
    movl $10, %esi
5:  sti
    hlt
    cli
    decl %esi
    jnz 5b
    xorl %eax, %eax
    cmpl $10, timer_ticks
    setae %al
    check_eq "periodic: ten HLT take ten ticks", %eax, $1
    lset L_INITIAL, 0
    call take
    movl timer_ticks, %ebx
    movl $300000, %ecx
6:  pause
    loop 6b
    call take
    check_eq "an initial count of 0 stops it", timer_ticks, %ebx
    lset L_TIMER, MASKED
    ret

on_timer:
    incl timer_ticks
    lset L_EOI, 0
    ret

# The 8259s' interrupt through LINT0.
virtual_wire:
    hook VEC_IRQ0, on_tick
    movl $11932, %eax
    call pit_start
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    movl $0, ticks
    lset L_LINT0, 0x700
    sti
1:  cmpl $3, ticks
    jb 1b
    cli
    lget L_ISR + 0x20
    check_eq "LINT0 ExtINT: ticks come, ISR is not touched", %eax, $0
    lset L_ICR, TO_SELF | VEC_A
    movl $0, arrived
    movl $0, ticks
2:  call wait_long
    movb $0x0a, %al
    outb %al, $PIC1
    inb $PIC1, %al
    testb $1, %al
    jz 2b
    lset L_TPR, 0xf0
    sti
    nop
    nop
    cli
    xorl %eax, %eax
    cmpl $0, ticks
    setne %al
    check_eq "TPR does not hold the 8259 back", %eax, $1
    check_eq "... but the local vector", arrived, $0
    lset L_TPR, 0
    call take
    check_eq "... until it is lowered", arrived, $1
    movb $0xff, %al
    outb %al, $PIC1 + 1
    lset L_LINT0, MASKED
    ret

# ioset register, value: writes a register of the I/O APIC.
.macro ioset register:req, value:req
    lset IOAPIC, \register
    lset IO_WINDOW, \value
.endm

redirection:
    lset IOAPIC, 1
    lget IO_WINDOW
    shrl $16, %eax
    movzbl %al, %eax
    check_eq "the I/O APIC has 24 entries", %eax, $23
    hook VEC_PIT, on_timer
    lget L_ID
    andl $0xff000000, %eax
    movl %eax, %ebx
    lset IOAPIC, 0x15
    movl $IO_WINDOW, %edx
    movl %ebx, (%edx)
    ioset 0x14, VEC_PIT
    lget IO_WINDOW
    check_eq "entry 2 reads back", %eax, $VEC_PIT
    movl $0, timer_ticks
    sti
1:  cmpl $5, timer_ticks
    jb 1b
    cli
    ioset 0x14, MASKED | VEC_PIT
    call take
    movl timer_ticks, %ebx
    sti
    call wait_long
    cli
    check_eq "the PIT ticks through entry 2 until it is masked", timer_ticks, %ebx
    ret

# COM1 through entry 4, level-triggered.
level:
    hook VEC_SERIAL, on_serial
    call serial_idle
    lget L_ID
    andl $0xff000000, %eax
    movl %eax, %ebx
    lset IOAPIC, 0x19
    movl $IO_WINDOW, %edx
    movl %ebx, (%edx)
    ioset 0x18, LEVEL | VEC_SERIAL
    movw $COM1 + 4, %dx
    movb $0x0b, %al
    outb %al, %dx
    movw $COM1 + 1, %dx
    movb $2, %al                        # transmitter empty: at once
    outb %al, %dx
    call take
    movw $COM1 + 1, %dx
    xorl %eax, %eax
    outb %al, %dx
    call take
    check_eq "the serial port's interrupt comes through entry 4", serial_count, $1
    ioset 0x18, MASKED
    ret

# Reading the IIR takes the request away.
on_serial:
    incl serial_count
    movw $COM1 + 2, %dx
    inb %dx, %al
    lset L_EOI, 0
    ret

serial_idle:
    movw $COM1 + 5, %dx
1:  inb %dx, %al
    testb $0x40, %al
    jz 1b
    ret

nmi:
    hook 2, on_nmi
    lset L_TPR, 0xf0
    lget L_ID                           # the shorthand for self is not for NMIs
    andl $0xff000000, %eax
    movl $L_ICR_HIGH, %edx
    movl %eax, (%edx)
    lset L_ICR, DELIVER_NMI
    jmp 1f
1:  nop
    check_eq "an NMI comes with IF=0 and TPR 0xf0", nmis, $2
    check_eq "... a second one waits for IRET", nested, $0
    lset L_TPR, 0
    ret

on_nmi:
    incl nmis
    incl depth
    cmpl $1, nmis
    jne 1f
    lset L_ICR, DELIVER_NMI
    jmp 1f
1:  cmpl $1, depth
    jbe 2f
    incl nested
2:  decl depth
    ret

on_spurious:
    ret

noting on_a, VEC_A
noting on_b, VEC_B
noting on_c, VEC_C

.bss
.balign 4
order: .space 4
arrived: .space 4
timer_ticks: .space 4
serial_count: .space 4
seen_ppr: .space 4
seen_isr: .space 4
nmis: .space 4
depth: .space 4
nested: .space 4
