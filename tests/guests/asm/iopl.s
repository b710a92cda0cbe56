# IOPL and the I/O permission bitmap: what lets ring 3 use CLI, STI, IN and OUT.

.set PORT, 0x3ff                        # COM1's scratch register

guest_main:
    plan 16
    call pic_init
    # IOPL 3.
    movl $0x3002, ring3_eflags
    movl $1f, %eax
    call enter_ring3_flags
    expect_trap "IOPL 3: ring 3 uses OUT and IN", VEC_LEAVE
    check_eq "... and reads what it wrote", trap_ebx, $0x5a
    movl trap_eflags, %eax
    andl $0x3000, %eax
    check_eq "... the frame shows IOPL 3", %eax, $0x3000
    movl $2f, %eax
    call enter_ring3_flags
    expect_trap "IOPL 3: STI in ring 3", VEC_LEAVE
    movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "... sets IF", %eax, $EFLAGS_IF
    movl $0x3202, ring3_eflags
    movl $3f, %eax
    call enter_ring3_flags
    expect_trap "IOPL 3: CLI in ring 3", VEC_LEAVE
    movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "... clears IF", %eax, $0
    movl $4f, %eax
    call enter_ring3_flags
    expect_trap "IOPL 3: HLT is refused all the same", VEC_GP, 0, 4f
    # IOPL 1 is not enough.
    movl $0x1002, ring3_eflags
    movl $1f, %eax
    call enter_ring3_flags
    expect_trap "IOPL 1: OUT is refused", VEC_GP, 0, 5f
    movl $2f, %eax
    call enter_ring3_flags
    expect_trap "IOPL 1: STI is refused", VEC_GP, 0, 2f

    # IOPL 0 and a bitmap behind the TSS, in which the port is free.
    movl $tss, %esi
    movl $long_tss, %edi
    movl $26, %ecx
    rep
    movsl
    movw $104, long_tss + 102
    movl $long_tss + 104, %edi
    movl $65, %ecx
    movl $-1, %eax
    rep
    stosl
    andb $~(1 << (PORT & 7)), long_tss + 104 + PORT / 8
    movl $long_tss, %eax
    movw %ax, gdt + SEL_FREE + 2
    shrl $16, %eax
    movb %al, gdt + SEL_FREE + 4
    movb %ah, gdt + SEL_FREE + 7
    movb $0x89, gdt + SEL_FREE + 5
    movw $104 + 128, gdt + SEL_FREE     # bits for ports 0 to 0x3ff, and the byte behind them
    movl $SEL_FREE, %eax
    ltr %ax
    run_ring3 1f
    expect_trap "bitmap: ring 3 uses the free port", VEC_LEAVE
    check_eq "... and reads what it wrote", trap_ebx, $0x5a
    run_ring3 6f
    expect_trap "bitmap: not the port below", VEC_GP, 0, 7f
    run_ring3 8f
    expect_trap "bitmap: not two bytes that include it", VEC_GP, 0, 9f
    run_ring3 2f
    expect_trap "bitmap: STI is refused", VEC_GP, 0, 2f
    orb $1 << (PORT & 7), long_tss + 104 + PORT / 8
    run_ring3 1f
    expect_trap "bitmap: a bit set later counts", VEC_GP, 0, 5f
    ret

1:  movw $PORT, %dx
    movb $0x5a, %al
5:  outb %al, %dx
    xorl %eax, %eax
    inb %dx, %al
    movl %eax, %ebx
    int $VEC_LEAVE
2:  sti
    nop
    int $VEC_LEAVE
3:  cli
    int $VEC_LEAVE
4:  hlt
    int $VEC_LEAVE
6:  movw $PORT - 1, %dx
7:  inb %dx, %al
    int $VEC_LEAVE
8:  movw $PORT - 1, %dx
9:  inw %dx, %ax
    int $VEC_LEAVE

.bss
.balign 8
long_tss: .space 104 + 65 * 4
