# The timer interrupt with CLI, STI, HLT and the PIC's mask. Only counts that do not depend on speed are printed.

.set DIVISOR, 11932                     # 100 Hz

guest_main:
    plan 15
    call pic_init
    hook VEC_IRQ0, note_tick
    movl $DIVISOR, %eax
    call pit_start

    sti
    call wait_long
    cli
    check_eq "masked at the PIC: nothing arrives", ticks, $0
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    call wait_long
    check_eq "unmasked, IF=0: nothing arrives", ticks, $0
    movb $0x0a, %al                     # OCW3: the next read gives the IRR
    outb %al, $PIC1
    inb $PIC1, %al
    andl $1, %eax
    check_eq "... but IRQ 0 is requested", %eax, $1

    # STI takes effect after the next instruction.
    movl $0, shadow
    sti
    movl $1, shadow
    nop
    cli
    xorl %eax, %eax                     # one, or two if the next tick came while the handler ran
    cmpl $0, ticks
    setne %al
    check_eq "STI: the pending interrupt arrives", %eax, $1
    check_eq "... after the instruction behind STI", seen_shadow, $1

    call wait_long
    movl ticks, %ebx
    sti
    cli                                 # in the shadow of STI: no interrupt gets in
    check_eq "STI; CLI lets nothing in", ticks, %ebx

    # The same STI again and again, each time with an interrupt pending: a monitor may know the instruction by now.
    movl $0, ticks
    movl $0, early
    movl $4, %esi
1:  call wait_long
    movl $0, shadow
    sti
    incl shadow
    nop
    cli
    decl %esi
    jnz 1b
    check_eq "STI in a loop: none before the instruction behind it", early, $0
    xorl %eax, %eax
    cmpl $4, ticks
    setae %al
    check_eq "... and each time one behind it", %eax, $1
    movl $0, ticks
    movl $4, %esi
1:  call wait_long
    sti
    cli
    decl %esi
    jnz 1b
    check_eq "STI; CLI in a loop lets nothing in", ticks, $0
    sti
    nop
    cli
    # POPF has no such shadow: in a loop of it the interrupt comes before the instruction behind it.
    movl $0, early
    movl $4, %esi
1:  call wait_long
    movl $0, shadow
    pushl $EFLAGS_IF | 2
    popfl
    incl shadow
    cli
    decl %esi
    jnz 1b
    xorl %eax, %eax
    cmpl $4, early
    setae %al
    check_eq "POPF in a loop: each time one before it", %eax, $1

    # HLT ten times.
    movl $0, ticks
    movl $10, %esi
1:  sti
    hlt
    cli
    decl %esi
    jnz 1b
    xorl %eax, %eax
    cmpl $10, ticks
    setae %al
    check_eq "ten HLT take ten ticks", %eax, $1
    xorl %eax, %eax
    cmpl $20, ticks
    setb %al
    check_eq "... and hardly more", %eax, $1

    # STI; HLT with an interrupt already pending must not sleep: HLT is in the shadow and wakes at once.
    call wait_long
    movl $0, ticks
    sti
    hlt
    cli
    xorl %eax, %eax
    cmpl $0, ticks
    setne %al
    check_eq "STI; HLT with a pending interrupt wakes", %eax, $1

    # A busy loop in ring 3 is interrupted.
    movl $0, ticks
    movl $EFLAGS_IF | 2, ring3_eflags
    movl $2f, %eax
    call enter_ring3_flags
    cli
    expect_trap "ring 3 waits for five ticks", VEC_LEAVE
    movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "... with IF=1", %eax, $EFLAGS_IF
    movb $0xff, %al
    outb %al, $PIC1 + 1
    ret
2:  cmpl $5, ticks
    jb 2b
    int $VEC_LEAVE

# The usual tick, and what `shadow` was at that moment; `early` counts the ticks that found 0.
note_tick:
    movl shadow, %eax
    movl %eax, seen_shadow
    cmpl $1, %eax
    adcl $0, early
    jmp on_tick

.bss
.balign 4
shadow: .space 4
seen_shadow: .space 4
early: .space 4
