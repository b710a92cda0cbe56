# Task gates as handlers, as test suites for hypervisors use them: with large pages from 0 to 2 and from 3 to 4 GiB, NMIs and interrupts of
# the local APIC, exceptions with and without error codes, a jump through a gate, virtual-8086 mode, SMAP as CPUID has it.

.set SEL_TASK, SEL_FREE + 0x00          # TSS of the handler
.set SEL_GATE, SEL_FREE + 0x08          # a task gate
.set SEL_MAIN, SEL_FREE + 0x10          # another TSS for this task
.set SEL_V86, SEL_FREE + 0x18
.set SEL_FAR, SEL_FREE + 0x20           # a TSS where no page is
.set FAR_TSS, 0x80001000
.set USER_PAGE, 0x01000000
.set CR4_SMAP, 0x00200000
.set HAS_SMAP, 1 << 20                  # CPUID, leaf 7: EBX
.set EFLAGS_NT, 0x4000
.set EFLAGS_VM, 0x20000
.set EFLAGS_AC, 0x40000
.set LARGE, PTE_P | PTE_W | PDE_PS
.set VEC_NMI, 2
.set VEC_SELF, 0xf0
.set LAPIC, 0xfee00000
.set L_EOI, LAPIC + 0xb0
.set L_SVR, LAPIC + 0xf0
.set L_ICR, LAPIC + 0x300
.set TO_SELF, 0x40000
.set ASSERT, 0x4000
.set DELIVER_NMI, 0x400

# tss_at selector, address, type
.macro tss_at selector, address, type
    movl $\address, %eax
    movw $103, gdt + \selector
    movw %ax, gdt + \selector + 2
    shrl $16, %eax
    movb %al, gdt + \selector + 4
    movb $\type, gdt + \selector + 5
    movb $0, gdt + \selector + 6
    movb %ah, gdt + \selector + 7
.endm

# handled vector, label: the task is new, begins at the label, and handles the vector.
.macro handled vector, label
    movl $\label, %eax
    call task_reset
    movw $SEL_TASK, idt + 8 * (\vector) + 2
    movb $0x85, idt + 8 * (\vector) + 5
.endm

.macro icr value
    movl $L_ICR, %edx
    movl $\value, (%edx)
    jmp .Lsent_\@                       # QEMU delivers at the end of a block
.Lsent_\@:
.endm

guest_main:
    plan 53
    call turn_paging_on
    movl $L_SVR, %edx
    movl $0x1ff, (%edx)
    call nmis
    call interrupt
    call exceptions
    call page_fault
    call jump_through_gate
    call absent_tss
    call virtual_8086
    call smap
    ret

turn_paging_on:
    call alloc_frame
    movl %eax, page_directory
    movl $LARGE | PTE_U, %edx
    xorl %ecx, %ecx
1:  movl %ecx, %ebx
    shrl $8, %ebx                       # the GiB
    cmpl $2, %ebx
    je 2f
    movl %edx, (%eax, %ecx, 4)
2:  addl $0x400000, %edx
    incl %ecx
    cmpl $1024, %ecx
    jne 1b
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    call paging_on
    movl page_directory, %eax
    movl %eax, tss + 0x1c
    ret

# EAX: where the task begins.
task_reset:
    pushl %edi
    pushl %ecx
    pushl %eax
    movl $task, %edi
    movl $26, %ecx
    xorl %eax, %eax
    rep
    stosl
    popl task + 0x20
    movl page_directory, %eax
    movl %eax, task + 0x1c
    movl $0x002, task + 0x24
    movl $0, task_stack_top - 4         # QEMU's AMD-V loses an error code whose page is new in the nested tables
    movl $task_stack_top, task + 0x38
    movl $SEL_KDATA, task + 0x48        # ES
    movl $SEL_KCODE, task + 0x4c
    movl $SEL_KDATA, task + 0x50        # SS
    movl $SEL_KDATA, task + 0x54        # DS
    movw $104, task + 102
    tss_at SEL_TASK, task, 0x89
    xorl %eax, %eax
    movl %eax, count
    movl %eax, again
    movl %eax, seen_link
    popl %ecx
    popl %edi
    ret

# Counts, and goes on behind its IRET when it comes again.
counting_task:
    incl count
    str seen_tr
    movw task, %ax
    movw %ax, seen_link
    iretl
    incl again
    jmp counting_task

irq_task:
    incl count
    movl $L_EOI, %edx
    movl $0, (%edx)
    iretl
    incl again
    jmp irq_task

nmis:
    handled VEC_NMI, counting_task
    int $VEC_NMI
1:  check_eq "INT 2 through a task gate", count, $1
    check_eq "... TR is the handler's", seen_tr, $SEL_TASK
    check_eq "... it links back", seen_link, $SEL_TSS
    movl tss + 0x20, %eax
    check_eq "... and EIP is behind INT", %eax, $1b
    str %eax
    check_eq "... TR is back", %eax, $SEL_TSS
    handled VEC_NMI, counting_task
    icr ASSERT | DELIVER_NMI
    nop
    check_eq "an NMI through a task gate", count, $1
    icr ASSERT | DELIVER_NMI
    nop
    check_eq "... another, behind the task's IRET", count, $2
    check_eq "... where the task goes on", again, $1
    pushfl
    popl %eax
    andl $EFLAGS_NT, %eax
    check_eq "... NT is clear again", %eax, $0
    clts
    ret

interrupt:
    handled VEC_SELF, irq_task
    sti
    icr TO_SELF | ASSERT | VEC_SELF
    nop
    cli
    check_eq "an interrupt through a task gate", count, $1
    icr TO_SELF | ASSERT | VEC_SELF
    nop
    check_eq "... waits with IF=0", count, $1
    sti
    nop
    cli
    check_eq "... and comes with IF=1", count, $2
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "... IF is this task's own", %eax, $0
    clts
    ret

repairing_task:
    movl $10, divider
    jmp counting_task

exceptions:
    movl $0, divider
    handled VEC_DE, repairing_task
    xorl %edx, %edx
    movl $1500, %eax
1:  divl divider
    clts
    check_eq "#DE through a task gate: tried again", %eax, $150
    movl tss + 0x20, %eax
    check_eq "... its EIP", %eax, $1b
    handled VEC_DE, counting_task
    int $0
    clts
    check_eq "INT 0", count, $1
    handled VEC_OF, counting_task
    movb $127, %al
    addb $127, %al
    into
1:  clts
    check_eq "INTO", count, $1
    movl tss + 0x20, %eax
    check_eq "... EIP is behind it", %eax, $1b
    handled VEC_OF, counting_task
    movb $127, %al
    addb $127, %al
    .byte 0x67                          # a prefix without meaning
    into
1:  clts
    check_eq "INTO with a prefix", count, $1
    movl tss + 0x20, %eax
    check_eq "... EIP is behind it", %eax, $1b
    handled VEC_BP, counting_task
    int3
1:  clts
    check_eq "INT3", count, $1
    movl tss + 0x20, %eax
    check_eq "... EIP is behind it", %eax, $1b
    handled VEC_UD, skipping_task
    ud2
    clts
    check_eq "#UD: the task skips it", count, $1
    movl $VEC_DE, %eax
    call gate_reset
    movl $VEC_OF, %eax
    call gate_reset
    movl $VEC_BP, %eax
    call gate_reset
    movl $VEC_UD, %eax
    call gate_reset
    ret

skipping_task:
    addl $2, tss + 0x20
    jmp counting_task

# Its stack has the error code.
fault_task:
    popl seen_error
    movl %cr2, %eax
    movl %eax, seen_cr2
    movl tss + 0x20, %eax
    movl %eax, seen_eip
    movl page_directory, %eax
    movl $USER_PAGE | LARGE | PTE_U, (%eax, %ecx, 4)
    movl tss + 0x28, %eax
    movl %eax, seen_eax
    incl count
    iretl
    jmp fault_task

page_fault:
    handled VEC_PF, fault_task
    movl $0xa0000000 >> 22, task + 0x2c # ECX: the entry
    movl $0x12345678, %eax
1:  movl %eax, 0xa0001234
    clts
    check_eq "#PF through a task gate", count, $1
    check_eq "... the error code is on its stack", seen_error, $PF_W
    check_eq "... CR2", seen_cr2, $0xa0001234
    check_eq "... EIP", seen_eip, $1b
    check_eq "... EAX is in the TSS", seen_eax, $0x12345678
    check_eq "... the write is done again", USER_PAGE + 0x1234, $0x12345678
    movl $0xa0400000 >> 22, task + 0x2c
    movl $0x55, %eax
    movl %eax, 0xa0402234
    clts
    check_eq "... and another, the task goes on behind its IRET", count, $2
    check_eq "... is done, too", USER_PAGE + 0x2234, $0x55
    movl page_directory, %eax
    movl $0, (0xa0000000 >> 22) * 4(%eax)
    movl $0, (0xa0400000 >> 22) * 4(%eax)
    movl %eax, %cr3
    movl $VEC_PF, %eax
    call gate_reset
    ret

# The handler makes a gate to the task that faulted, which it declares free, and jumps through it.
jumping_task:
    popl seen_error
    addl $2, tss + 0x20
    andb $~2, gdt + SEL_TSS + 5
    movw task, %ax
    movw %ax, gdt + SEL_GATE + 2
    movb $0x85, gdt + SEL_GATE + 5
    ljmp $SEL_GATE, $0

jump_through_gate:
    handled VEC_GP, jumping_task
    movl $0x1234, %eax
    movl %eax, %es
    clts
    check_eq "#GP through a task gate: the error code", seen_error, $0x1234
    str %eax
    check_eq "... JMP through a gate leads back", %eax, $SEL_TSS
    movzbl gdt + SEL_TSS + 5, %eax
    check_eq "... this task is busy", %eax, $0x8b
    movzbl gdt + SEL_TASK + 5, %eax
    check_eq "... the handler's not", %eax, $0x89
    pushfl
    popl %eax
    andl $EFLAGS_NT, %eax
    check_eq "... and NT is clear", %eax, $0
    movl $VEC_GP, %eax
    call gate_reset
    ret

# A TSS where no page is: the switch faults before it begins, and is made again.
absent_tss:
    tss_at SEL_FAR, FAR_TSS, 0x89
    movl $0, count
    try 1f
    lcall $SEL_FAR, $0
1:  expect_trap "a TSS without a page: #PF", VEC_PF, 0
    movl trap_cr2, %eax
    andl $0xfffff000, %eax
    check_eq "... there", %eax, $FAR_TSS
    str %eax
    check_eq "... TR is as it was", %eax, $SEL_TSS
    movzbl gdt + SEL_FAR + 5, %eax
    check_eq "... the other is not busy", %eax, $0x89
    handled VEC_SELF, counting_task
    hook VEC_PF, map_far_tss
    lcall $SEL_FAR, $0
    clts
    hook VEC_PF, 0
    check_eq "... with a page it is made", count, $1
    ret

# The page is task's, so it is the TSS of before with another name.
map_far_tss:
    movl page_directory, %eax
    call alloc_frame
    movl %eax, %ebx
    movl $task, %edx
    andl $0xfffff000, %edx
    orl $PTE_P | PTE_W, %edx
    movl %edx, 4(%ebx)                  # FAR_TSS is the second page
    orl $PTE_P | PTE_W, %eax
    movl page_directory, %edx
    movl %eax, (FAR_TSS >> 22) * 4(%edx)
    ret

# An IRET with NT to a task in virtual-8086 mode, whose first instruction raises #UD, which is a task gate back.
virtual_8086:
    movw $0x0b0f, 0x42000               # UD2
    tss_at SEL_MAIN, main_tss, 0x89
    tss_at SEL_V86, v86_tss, 0x8b       # busy
    movl $SEL_MAIN, %eax
    ltr %ax
    movl page_directory, %eax
    movl %eax, main_tss + 0x1c
    movl %eax, v86_tss + 0x1c
    movw $SEL_V86, main_tss
    movl $0x20002, v86_tss + 0x24
    movl $0x4200, v86_tss + 0x4c
    movl $0x1234, v86_tss + 0x54
    movl $0x2345, v86_tss + 0x48
    movw $SEL_MAIN, idt + 8 * VEC_UD + 2
    movb $0x85, idt + 8 * VEC_UD + 5
    pushfl
    orl $EFLAGS_NT, (%esp)
    popfl
    iretl
    clts
    str %eax
    check_eq "IRET to virtual-8086 mode, #UD back: TR", %eax, $SEL_MAIN
    movzwl main_tss, %eax
    check_eq "... the link", %eax, $SEL_V86
    movl v86_tss + 0x20, %eax
    check_eq "... that task's EIP", %eax, $0
    movzwl v86_tss + 0x54, %eax
    check_eq "... its DS", %eax, $0x1234
    movzwl v86_tss + 0x4c, %eax
    check_eq "... its CS", %eax, $0x4200
    movl v86_tss + 0x24, %eax
    andl $EFLAGS_VM, %eax
    check_eq "... and VM", %eax, $EFLAGS_VM
    pushfl
    andl $~EFLAGS_NT, (%esp)
    popfl
    movl $VEC_UD, %eax
    call gate_reset
    andb $~2, gdt + SEL_TSS + 5
    movl $SEL_TSS, %eax
    ltr %ax
    ret

# The handler of SMAP's faults sets AC for the task that is tried again.
allowing_task:
    popl seen_error
    orl $EFLAGS_AC, tss + 0x24
    incl count
    iretl
    jmp allowing_task

smap:
    movl $7, %eax
    xorl %ecx, %ecx
    cpuid
    andl $HAS_SMAP, %ebx
    movl %ebx, features
    movl page_directory, %eax           # the kernel's are the first 16 MiB
    andl $~PTE_U, (%eax)
    andl $~PTE_U, 4(%eax)
    andl $~PTE_U, 8(%eax)
    andl $~PTE_U, 12(%eax)
    movl %eax, %cr3
    movl $0x77, USER_PAGE
    testl %ebx, %ebx
    jz 1f
    movl %cr4, %eax
    orl $CR4_SMAP, %eax
    movl %eax, %cr4
1:  handled VEC_PF, allowing_task
    pushl $2
    popfl
    movl $PF_P, seen_error              # if nothing happens
    movl USER_PAGE, %esi
    clts
    call leave_smap
    check_eq "SMAP: a read of the user's, allowed by the handler", %esi, $0x77
    check_eq "... faults once, if at all", count, wanted_count
    check_eq "... its error code", seen_error, $PF_P
    check_eq "... AC is what the handler made it", seen_flags, wanted_flags
    movl $0, count
    pushl $2
    popfl
    movl $PF_P | PF_W, seen_error
    incl USER_PAGE
    clts
    call leave_smap
    check_eq "... the same for INC", count, wanted_count
    movl %cr4, %eax
    andl $~CR4_SMAP, %eax
    movl %eax, %cr4
    movl USER_PAGE, %eax
    check_eq "... which is done once", %eax, $0x78
    movl $VEC_PF, %eax
    call gate_reset
    ret

# Notes AC, and what is wanted.
leave_smap:
    pushfl
    popl %eax
    andl $EFLAGS_AC, %eax
    movl %eax, seen_flags
    pushl $2
    popfl
    xorl %eax, %eax
    movl %eax, wanted_flags
    testl $HAS_SMAP, features
    jz 1f
    incl %eax
    movl $EFLAGS_AC, wanted_flags
1:  movl %eax, wanted_count
    ret

.bss
.balign 4096
task: .space 104
    .space 4096 - 104
    .space 4096
task_stack_top:
main_tss: .space 104
v86_tss: .space 104
count: .space 4
again: .space 4
divider: .space 4
features: .space 4
wanted_count: .space 4
wanted_flags: .space 4
seen_link: .space 4
seen_tr: .space 4
seen_error: .space 4
seen_cr2: .space 4
seen_eip: .space 4
seen_eax: .space 4
seen_flags: .space 4
