# Hostile cases: selectors, IRET, and faults without end.

.text
# EDI: the next selector to try; ZF when all were. Each one of the guest's descriptors, and of those at the end that a hypervisor may
# have for itself; between them, where there is nothing, one in 29 (every RPL, both tables).
next_selector:
    cmpl $0x800, %edi
    jb 1f
    cmpl $0xfc00, %edi
    jae 1f
    addl $28, %edi
1:  incl %edi
    cmpl $0x10000, %edi
    ret
jump_selectors:
    xorl %edi, %edi
1:  movw %di, far_pointer + 4
    movl $2f, far_pointer
    try 2f
    ljmp *far_pointer
2:  ljmp $SEL_KCODE, $3f
3:  call next_selector
    jne 1b
    ret
jump_selectors_ring3:
    xorl %edi, %edi
1:  movw %di, far_pointer + 4
    movl $3f, far_pointer
    run_ring3 2f
    call next_selector
    jne 1b
    ret
2:  ljmp *far_pointer
3:  int $VEC_LEAVE
return_selectors:
    xorl %edi, %edi
1:  try 2f
    pushl $2
    pushl %edi
    pushl $2f
    iretl
2:  ljmp $SEL_KCODE, $3f
3:  try 4f
    pushl $SEL_UDATA
    pushl $user_stack_top
    pushl $2
    pushl %edi
    pushl $5f
    iretl
4:  ljmp $SEL_KCODE, $6f
5:  int $VEC_LEAVE
6:  call next_selector
    jne 1b
    ret
load_selectors:
    xorl %edi, %edi
1:  .irp register, ds, es, fs, gs, ss
    try .Lnext_\register
    movw %di, %\register
.Lnext_\register:
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    .endr
    call next_selector
    jne 1b
    movw %ax, %fs
    movw %ax, %gs
    ret
load_selectors_ring3:
    xorl %edi, %edi
1:  run_ring3 2f
    run_ring3 3f
    call next_selector
    jne 1b
    movl $SEL_KDATA, %eax
    movw %ax, %fs
    movw %ax, %gs
    ret
2:  movw %di, %fs
    movw %di, %gs
    int $VEC_LEAVE
3:  movw %di, %ss
    int $VEC_LEAVE

# ---- IRET

iret_vm:                                # virtual-8086 mode: frame ES DS FS GS behind SS ESP
    .rept 4
    pushl $0
    .endr
    pushl $0x1000
    pushl $0x0800
    pushl $0x00020202
    pushl $0x0200
    pushl $0
    iretl
iret_vm_ring3:
    run_ring3 1f
    ret
1:  .rept 4
    pushl $0
    .endr
    pushl $0x1000
    pushl $0x0800
    pushl $0x00023202
    pushl $0x0200
    pushl $0
    iretl
iret_flags:                             # every flag by itself, within ring 0 and to ring 3
    movl $1, %esi
1:  testl $0x00020000, %esi             # but VM
    jnz 4f
    try 2f
    pushl %esi
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  cli
    pushl $2
    popfl
    movl %esi, ring3_eflags
    movl $3f, %eax
    call enter_ring3_flags
    pushl $2
    popfl
4:  addl %esi, %esi
    jnz 1b
    ret
3:  int $VEC_LEAVE

# ---- faults without end

triple_fault:
    lidt nothing
    ud2
fault_loop:                             # the handler of #PF faults on its first instruction
    call identity
    movl $VEC_PF, %eax
    movl $0x70000000, %edx
    call gate_set
    movl 0x60000000, %eax
    ret
fault_loop_forever:                     # the same without a growing stack: the handler resets it
    call identity
    movl $VEC_PF, %eax
    movl $1f, %edx
    call gate_set
    jmp 2f
1:  movl $stack_top, %esp
2:  movl 0x60000000, %eax
    ret
gate_absent:                            # #PF with an absent gate, and #DF too
    call identity
    movb $0x0e, idt + VEC_PF * 8 + 5
    movb $0x0e, idt + VEC_DF * 8 + 5
    movl 0x60000000, %eax
    ret
stack_gone:                             # ring 0's own stack is not mapped
    call identity
    movl $0x70000000, %esp
    ud2
spin:                                   # interrupts off, for ever
    cli
    jmp .
halt:                                   # the same asleep
    cli
    hlt
    jmp halt
