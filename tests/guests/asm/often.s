# What a monitor may do in a shorter way once it knows the instruction: each is executed several times, the last ones where the
# shorter way would be wrong.

.set SEL_BASED, SEL_FREE + 0x00         # ring 0 data, base BASE
.set SEL_STACK, SEL_FREE + 0x08         # the same, base stack_area
.set SEL_STACK16, SEL_FREE + 0x10       # the same, 16 bits
.set BASE, 0x40000000
.set PAGE_GVA, 0x40001000
.set VEC_CALL, 0x80
.set EFLAGS_NT, 0x4000
.set EFLAGS_DF, 0x400
.set PCI_ADDRESS, 0xcf8
.set PCI_DATA, 0xcfc

# on_stack selector, esp: ESP is kept.
.macro on_stack selector:req, esp:req
    movl %esp, kept_esp
    movl $\selector, %eax
    movw %ax, %ss
    movl $\esp, %esp
.endm
.macro back
    movl %esp, seen_esp
    movl $SEL_KDATA, %eax
    movw %ax, %ss
    movl kept_esp, %esp
.endm

guest_main:
    plan 25
    call descriptors
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    call controls
    call invalidations
    call ports
    call stack_forms
    call system_calls
    call nested_returns
    ret

descriptors:
    movl $BASE, %edx
    movl $gdt + SEL_BASED, %edi
    movl $0x00c09200, %ecx
    call descriptor
    movl $stack_area, %edx
    movl $gdt + SEL_STACK, %edi
    call descriptor
    movl $gdt + SEL_STACK16, %edi
    movl $0x00809200, %ecx
    jmp descriptor

# EDI: an entry of the GDT, EDX: base, ECX: its second half without a base.
descriptor:
    movl %edx, %eax
    shll $16, %eax
    orl $0xffff, %eax
    movl %eax, (%edi)
    movl %edx, %eax
    andl $0xff000000, %eax
    orl %ecx, %eax
    movl %eax, 4(%edi)
    shrl $16, %edx
    movb %dl, 4(%edi)
    shll $16, %edx
    ret

controls:
    movl $0x12345678, %eax
    movl %eax, %cr2
    movl %cr4, %edi
    movl %edi, %eax
    xorl $CR4_DE, %eax
    movl %eax, %cr4
    movl $4, %ecx
    xorl %esi, %esi
    movl %cr0, %ebx
1:  movl %cr2, %eax
    xorl $0x12345678, %eax
    orl %eax, %esi
    movl %cr3, %eax
    xorl page_directory, %eax
    orl %eax, %esi
    movl %cr4, %eax
    xorl $CR4_DE, %eax
    xorl %edi, %eax
    orl %eax, %esi
    movl %cr0, %eax
    xorl %ebx, %eax
    orl %eax, %esi
    loop 1b
    movl %edi, %cr4
    check_eq "MOV from CR2, CR3, CR4 and CR0", %esi, $0
    ret

# One INVLPG, through a flat DS and through one with a base.
invalidate:
    invlpg 4(%ebx)
    ret

invalidations:
    movl $4, %esi
    xorl %edi, %edi
1:  movl $PAGE_GVA - 4, %ebx
    movl $SEL_KDATA, %edx
    call exchange
    decl %esi
    jnz 1b
    check_eq "INVLPG", %edi, $0
    movl $4, %esi
1:  movl $PAGE_GVA - 4 - BASE, %ebx
    movl $SEL_BASED, %edx
    call exchange
    decl %esi
    jnz 1b
    check_eq "INVLPG in a segment with a base", %edi, $0
    ret

# Uses a page, gives it another frame, and looks whether it is seen. EBX: what INVLPG is to take, EDX: its DS. EDI counts failures.
exchange:
    pushl %edx
    movl $first_page, %edx
    call give
    movl $1, PAGE_GVA
    movl PAGE_GVA, %eax
    movl $PAGE_GVA, %eax
    call pte_of
    movl $second_page, %edx
    orl $PTE_P | PTE_W, %edx
    movl %eax, %ecx
    popl %eax
    movl %edx, (%ecx)
    movw %ax, %ds
    call invalidate
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movl $2, second_page
    cmpl $2, PAGE_GVA
    je 1f
    incl %edi
1:  ret

give:
    movl $PAGE_GVA, %eax
    orl $PTE_P | PTE_W, %edx
    jmp map_page

ports:
    movl $4, %ecx
    xorl %esi, %esi
    xorl %edi, %edi
    movl $0x80000000, %ebx
1:  movl %ebx, %eax
    movw $PCI_ADDRESS, %dx
    outl %eax, %dx
    xorl %eax, %eax
    inl %dx, %eax
    xorl %ebx, %eax
    orl %eax, %esi
    movl $0x80000000, %eax              # the host bridge
    outl %eax, %dx
    movw $PCI_DATA, %dx
    inl %dx, %eax
    andl $0xffff, %eax
    orl $0x55550000, %eax
    movl %eax, %ebp
    movl $0x55555555, %eax
    inw %dx, %ax
    xorl %ebp, %eax
    orl %eax, %edi
    addl $0x800, %ebx
    loop 1b
    check_eq "OUT and IN of a doubleword", %esi, $0
    check_eq "IN of a word leaves the upper half", %edi, $0
    ret

# The instructions themselves: once in memory, used on each stack. ESI: a sum of what came.
sum_forms:
    pushl %cs
    popl %eax
    addl %eax, %esi
    pushl $EFLAGS_DF | 0x55
    popfl
    pushfl
    popl %eax
    cld
    addl %eax, %esi
    ret

# ESI: the sum of what the forms give when they are executed several times.
.macro sum_often
    xorl %esi, %esi
    movl $4, %edi
1:  call sum_forms
    decl %edi
    jnz 1b
.endm

stack_forms:
    sum_often
    movl %esi, forms_flat
    movl 0x7f0, %eax                    # there would be the stacks, if they had no base
    movl %eax, 0x7f0
    on_stack SEL_STACK, 0x800
    sum_often
    back
    check_eq "PUSH CS, POPF, PUSHF on a stack with a base", %esi, forms_flat
    check_eq "... ESP", seen_esp, $0x800
    on_stack SEL_STACK16, 0x800
    sum_often
    back
    check_eq "... on one of 16 bits", %esi, forms_flat
    movzwl seen_esp, %eax
    check_eq "... SP", %eax, $0x800
    sum_often
    check_eq "... and on the flat one again", %esi, forms_flat
    xorl %eax, %eax
    movl $4, %edi
1:  pushl %cs
    popl %edx
    addl %edx, %eax
    decl %edi
    jnz 1b
    check_eq "PUSH CS shows privilege level 0", %eax, $4 * SEL_KCODE
    ret

system_calls:
    movl $VEC_CALL, %eax
    movl $0xee, %edx
    call gate_type
    hook VEC_CALL, on_call
    movl $0, calls
    run_ring3 1f
    check_eq "INT 0x80 in ring 3", calls, $4
    movl $VEC_CALL, %eax
    movl $0x8e, %edx
    call gate_type
    run_ring3 1f
    expect_trap "... through a gate of DPL 0", VEC_GP, VEC_CALL * 8 + 2
    check_eq "... does not arrive", calls, $4
    int $VEC_CALL
    check_eq "... but in ring 0 it does", calls, $5
    movl $VEC_CALL, %eax
    movl $0xee, %edx
    call gate_type
    run_ring3 1f
    check_eq "... and from ring 3 again", calls, $9
    movl $VEC_CALL, %eax
    movl $0x6e, %edx
    call gate_type
    run_ring3 1f
    expect_trap "... through one that is not present", VEC_NP, VEC_CALL * 8 + 2
    movl $VEC_CALL, %eax
    movl $0xef, %edx
    call gate_type
    run_ring3 1f
    check_eq "... through a trap gate", calls, $13
    hook VEC_CALL, 0
    ret
    .pushsection .text.ring3
1:  movl $4, %ecx
2:  int $VEC_CALL
    loop 2b
    int $VEC_LEAVE
    .popsection

on_call:
    incl calls
    ret

# An IRET that has returned within the kernel often, then with NT: it would return to the task before, of which there is none.
nested_returns:
    movl $4, %edi
    xorl %esi, %esi
1:  movl $2, %edx
    call return_by_iret
    incl %esi
    decl %edi
    jnz 1b
    check_eq "IRET", %esi, $4
    try 2f
    movl $EFLAGS_NT | 2, %edx
    call return_by_iret
2:  expect_trap "IRET with NT and no task before", 10, 0, iret_itself
    try 2f
    movl $EFLAGS_NT | 2, %edx
    call return_by_iret
2:  expect_trap "... a second time", 10, 0, iret_itself
    pushfl
    popl %eax
    andl $EFLAGS_NT, %eax
    check_eq "... NT is clear", %eax, $0
    movl $2, %edx
    call return_by_iret
    check_eq "IRET without NT again", %edx, $2
    call images
    ret

# EDX: EFLAGS at the IRET.
return_by_iret:
    pushl $2
    pushl $SEL_KCODE
    pushl $1f
    pushl %edx
    popfl
iret_itself:
    iretl
1:  ret

# What IRET loads within ring 0.
images:
    xorl %esi, %esi
    movl $4, %edi
1:  pushl $0x3ad7 & ~EFLAGS_IF & ~EFLAGS_TF
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  pushfl
    popl %eax
    addl %eax, %esi
    decl %edi
    jnz 1b
    pushl $2
    popfl
    check_eq "IRET loads IOPL and the arithmetic flags", %esi, $4 * (0x3ad7 & ~EFLAGS_IF & ~EFLAGS_TF)
    pushfl
    popl %eax
    andl $0x3000, %eax
    check_eq "... and POPF clears IOPL", %eax, $0
    ret

.bss
.balign 4096
first_page: .space 4096
second_page: .space 4096
stack_area: .space 4096
kept_esp: .space 4
seen_esp: .space 4
forms_flat: .space 4
calls: .space 4
