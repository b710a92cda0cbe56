# Hardware task switches: JMP, CALL, IRET with NT, task gates in the GDT and in the IDT, another CR3, and what is refused.

.set SEL_TASK, SEL_FREE + 0x00          # TSS of the second task
.set SEL_GATE, SEL_FREE + 0x08          # task gate to it
.set SEL_SHORT, SEL_FREE + 0x10         # a TSS that is too short
.set SEL_ABSENT, SEL_FREE + 0x18        # a TSS that is not present
.set EFLAGS_NT, 0x4000
.set BUSY, 0x02

# set_tss selector, type byte, limit
.macro set_tss selector, type, limit=103
    movl $task, %eax
    movw $\limit, gdt + \selector
    movw %ax, gdt + \selector + 2
    shrl $16, %eax
    movb %al, gdt + \selector + 4
    movb $\type, gdt + \selector + 5
    movb $0, gdt + \selector + 6
    movb %ah, gdt + \selector + 7
.endm

# task_at label: the second task is new, and begins there.
.macro task_at entry
    movl $\entry, %eax
    call task_reset
.endm

.macro task_gate vector
    movw $SEL_TASK, idt + 8 * (\vector) + 2
    movb $0x85, idt + 8 * (\vector) + 5
.endm

guest_main:
    plan 46
    movl %cr3, %eax                     # CR3 is loaded by a switch once paging is on
    movl %eax, tss + 0x1c
    movw $SEL_TASK, gdt + SEL_GATE + 2
    movb $0x85, gdt + SEL_GATE + 5
    set_tss SEL_SHORT, 0x89, 102
    set_tss SEL_ABSENT, 0x09
    call calls
    call user_task
    call jumps
    call gates
    call refusals
    call other_cr3
    call virtual_8086
    ret

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
    movl %cr3, %eax
    movl %eax, task + 0x1c
    movl $0x002, task + 0x24
    movl $0x11111111, task + 0x28       # EAX
    movl $0x22222222, task + 0x2c       # ECX
    movl $0x77777777, task + 0x44       # EDI
    movl $task_stack_top, task + 0x38
    movl $SEL_KDATA, task + 0x48        # ES
    movl $SEL_KCODE, task + 0x4c
    movl $SEL_KDATA, task + 0x50        # SS
    movl $SEL_KDATA, task + 0x54        # DS
    movw $104, task + 102
    set_tss SEL_TASK, 0x89
    movl $0, seen_eax
    movl $0, seen_flags
    movl $NONE, seen_error
    popl %ecx
    popl %edi
    ret

# The second task: notes what it finds, and returns. Each later switch to it goes on behind the IRET.
noting_task:
    movl %eax, seen_eax
    movl %edi, seen_edi
    movl %esp, seen_esp
    pushfl
    popl seen_flags
    movw %fs, seen_fs
    movl %cr0, %eax
    andl $CR0_TS, %eax
    movl %eax, seen_ts
    str seen_tr
    movb gdt + SEL_TASK + 5, %al
    movb %al, seen_busy
    movb gdt + SEL_TSS + 5, %al
    movb %al, seen_old_busy
    iretl
    incl seen_again
    iretl

# The same for an exception with an error code, which it drops.
error_task:
    popl seen_error
    movl %cr2, %eax
    movl %eax, seen_eax
    movl tss + 0x20, %eax
    movl %eax, seen_eip
    movl $resumed, tss + 0x20
    iretl

# Comes by JMP and leaves by JMP.
jumped_task:
    movl %eax, seen_eax
    pushfl
    popl seen_flags
    movb gdt + SEL_TSS + 5, %al
    movb %al, seen_old_busy
    ljmp $SEL_TSS, $0

calls:
    task_at noting_task
    movl $0x33333333, %ebx
    movl $0x44444444, %esi
    lcall $SEL_TASK, $0
    clts
    movl %ebx, kept_ebx
    pushfl
    popl %ebx
    andl $EFLAGS_NT, %ebx
    check_eq "CALL: the task gets its EAX", seen_eax, $0x11111111
    check_eq "... its EDI", seen_edi, $0x77777777
    check_eq "... and its ESP", seen_esp, $task_stack_top
    andl $EFLAGS_NT, seen_flags
    check_eq "... NT is set", seen_flags, $EFLAGS_NT
    check_eq "... and CR0.TS", seen_ts, $CR0_TS
    check_eq "... FS is null", seen_fs, $0
    check_eq "... TR is its selector", seen_tr, $SEL_TASK
    andl $BUSY, seen_busy
    check_eq "... it is busy", seen_busy, $BUSY
    andl $BUSY, seen_old_busy
    check_eq "... the caller too", seen_old_busy, $BUSY
    movzwl task, %eax
    check_eq "... it links to the caller", %eax, $SEL_TSS
    check_eq "IRET: EBX is back", kept_ebx, $0x33333333
    check_eq "... and ESI", %esi, $0x44444444
    check_eq "... NT is clear", %ebx, $0
    str %ecx
    andl $0xffff, %ecx
    check_eq "... TR is the first task's", %ecx, $SEL_TSS
    movzbl gdt + SEL_TASK + 5, %eax
    check_eq "... the second is not busy", %eax, $0x89
    movl task + 0x24, %eax
    andl $EFLAGS_NT, %eax
    check_eq "... and its NT was saved as 0", %eax, $0
    movl $0, seen_again
    lcall $SEL_TASK, $0
    clts
    check_eq "CALL again: it goes on behind its IRET", seen_again, $1
    ret

# A task in ring 3: its IRET goes back, whatever lies on its stack.
user_task:
    task_at returning_task
    call user_segments
    movl $SEL_UCODE, task + 0x4c
    lcall $SEL_TASK, $0
    clts
    check_eq "CALL to a task in ring 3", seen_eax, $0x11111111
    check_eq "... its IRET is no return within ring 3", seen_again, $0
    run_ring3 popping
    movl trap_eflags, %eax
    andl $EFLAGS_NT, %eax
    check_eq "NT that ring 3 has set is in the frame", %eax, $EFLAGS_NT
    movl $EFLAGS_NT | 2, ring3_eflags
    movl $pushing, %eax
    call enter_ring3_flags
    movl trap_ebx, %eax
    andl $EFLAGS_NT, %eax
    check_eq "ring 3 sees NT that IRET has loaded", %eax, $EFLAGS_NT
    ret
user_segments:
    movl $user_stack_top - 16, task + 0x38
    movl $SEL_UDATA, task + 0x48
    movl $SEL_UDATA, task + 0x50
    movl $SEL_UDATA, task + 0x54
    movl $astray, user_stack_top - 16
    movl $SEL_UCODE, user_stack_top - 12
    movl $2, user_stack_top - 8
    movl $0, seen_again
    ret
returning_task:
    movl %eax, seen_eax
    iretl
astray:
    incl seen_again
    int $VEC_LEAVE
popping:
    pushl $EFLAGS_NT | 2
    popfl
    int $VEC_LEAVE
pushing:
    pushfl
    popl %ebx
    int $VEC_LEAVE

jumps:
    task_at jumped_task
    ljmp $SEL_TASK, $0
    clts
    check_eq "JMP: the task gets its EAX", seen_eax, $0x11111111
    andl $EFLAGS_NT, seen_flags
    check_eq "... NT is clear", seen_flags, $0
    andl $BUSY, seen_old_busy
    check_eq "... the first task is not busy", seen_old_busy, $0
    movzbl gdt + SEL_TSS + 5, %eax
    check_eq "JMP back: the first is busy", %eax, $0x8b
    movzbl gdt + SEL_TASK + 5, %eax
    check_eq "... the second is not", %eax, $0x89
    task_at noting_task
    lcall $SEL_GATE, $0
    clts
    check_eq "CALL through a task gate", seen_eax, $0x11111111
    ret

gates:
    task_at noting_task
    task_gate 0x50
    int $0x50
    clts
    check_eq "INT through a task gate", seen_eax, $0x11111111
    andl $EFLAGS_NT, seen_flags
    check_eq "... NT is set", seen_flags, $EFLAGS_NT
    task_at error_task
    task_gate VEC_GP
    movl $0x58, %eax
1:  movw %ax, %ds                       # beyond what is filled in
    nop
resumed:
    clts
    check_eq "#GP through a task gate: the error code is on its stack", seen_error, $0x58
    check_eq "... and the instruction's address in the old TSS", seen_eip, $1b
    movl $VEC_GP, %eax
    call gate_reset
    ret

refusals:
    task_at noting_task
    movl $VEC_GP, %eax
    movl $0x8e, %edx
    call gate_type
    fault "CALL to the task that runs", VEC_GP, SEL_TSS, lcall $SEL_TSS, $0
    fault "JMP to a TSS that is not present", VEC_NP, SEL_ABSENT, ljmp $SEL_ABSENT, $0
    fault "JMP to a TSS that is too short", 10, SEL_SHORT, ljmp $SEL_SHORT, $0
    fault3 "ring 3: CALL to a TSS of DPL 0", VEC_GP, SEL_TASK, lcall $SEL_TASK, $0
    movl $0x70, task + 0x54             # DS: an empty descriptor
    task_gate 0x50
    try 1f
    int $0x50
1:  expect_trap "a task with a bad DS", 10, 0x70, noting_task
    str %ecx
    andl $0xffff, %ecx
    check_eq "... which fails in the new task", %ecx, $SEL_TASK
    clts
    pushfl                              # this is the second task now: leave it
    andl $~EFLAGS_NT, (%esp)
    popfl
    movb $0x89, gdt + SEL_TSS + 5
    movb $0x89, gdt + SEL_TASK + 5
    movl $SEL_TSS, %eax
    ltr %ax
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movzbl gdt + SEL_TSS + 5, %eax
    check_eq "LTR makes it busy", %eax, $0x8b
    ret

# A task in virtual-8086 mode, whose first instruction leaves it. The handler runs in that task, and returns by NT.
virtual_8086:
    movw $0x0b0f, 0x42000               # UD2
    task_at 0
    movl $0x20002, task + 0x24
    movl $0x4200, task + 0x4c
    movl $trap_stack_top, task + 4
    movl $SEL_KDATA, task + 8
    try 1f
    lcall $SEL_TASK, $0
    jmp 2f
1:  expect_trap "a task in virtual-8086 mode: UD2", VEC_UD, ANY, 0
    str %eax
    check_eq "... handled in that task", %eax, $SEL_TASK
    pushfl
    orl $EFLAGS_NT, (%esp)
    popfl
    iretl
2:  str %eax
    check_eq "... which returns", %eax, $SEL_TSS
    ret

# A task with page tables of its own, in which a page is mapped elsewhere.
other_cr3:
    movl $directory, %edi               # the first 4 MiB as they are
    movl $0x00000083, (%edi)
    movl $0x00000083, directory2
    movl $table + PTE_P + PTE_W, directory + 4
    movl $table2 + PTE_P + PTE_W, directory2 + 4
    movl $page1 + PTE_P + PTE_W, table
    movl $page2 + PTE_P + PTE_W, table2
    movl $0x1111, page1
    movl $0x2222, page2
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    movl $directory, %eax
    movl %eax, %cr3
    movl %eax, tss + 0x1c
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    task_at mapped_task
    movl $directory2, task + 0x1c
    movl 0x400000, %ebx
    lcall $SEL_TASK, $0
    clts
    movl 0x400000, %esi
    movl %cr3, %edi
    check_eq "before: the first task's page", %ebx, $0x1111
    check_eq "the second task sees its own", seen_eax, $0x2222
    check_eq "... and CR3 is its own", seen_edi, $directory2
    check_eq "after: the first task's page", %esi, $0x1111
    check_eq "... and CR3", %edi, $directory
    movl %cr0, %eax
    andl $~CR0_PG, %eax
    movl %eax, %cr0
    ret

mapped_task:
    movl 0x400000, %eax
    movl %eax, seen_eax
    movl %cr3, %eax
    movl %eax, seen_edi
    iretl

.bss
.balign 4096
directory: .space 4096
directory2: .space 4096
table: .space 4096
table2: .space 4096
page1: .space 4096
page2: .space 4096
task: .space 104
    .space 24
    .space 4096
task_stack_top:
seen_eax: .space 4
seen_edi: .space 4
seen_esp: .space 4
seen_flags: .space 4
seen_fs: .space 4
seen_ts: .space 4
seen_tr: .space 4
seen_busy: .space 4
seen_old_busy: .space 4
seen_again: .space 4
seen_error: .space 4
seen_eip: .space 4
kept_ebx: .space 4
