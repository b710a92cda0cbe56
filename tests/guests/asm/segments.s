# Segment registers: loads that are refused, what a return to an outer ring empties, segments of the LDT, and descriptors that
# change beside data that changes.

.set SEL_LDT, SEL_FREE + 0x00
.set SEL_ABSENT_DATA, SEL_FREE + 0x08   # ring 0 data, not present
.set SEL_READ_ONLY, SEL_FREE + 0x10     # ring 0 data, read-only
.set SEL_EXECUTE, SEL_FREE + 0x18       # ring 0 code, execute-only
.set SEL_CODE_2, SEL_FREE + 0x20        # as the usual ones, to be changed: ring 0 code
.set SEL_UCODE_2, SEL_FREE + 0x28 + 3   # ring 3 code
.set SEL_UDATA_2, SEL_FREE + 0x30 + 3   # ring 3 data
.set SEL_MANY, SEL_FREE + 0x38          # an LDT
.set MANY, 400                          # ... of so many descriptors
.set SEL_LIMIT, SEL_FREE + 0x40         # for ring 3 to look at, never loaded
.set BESIDE, gdt + SEL_FREE + 0x48      # data in the GDT's page
.set LDT_CODE, 0x0f                     # in the LDT: ring 3 code
.set LDT_DATA, 0x17                     # ... and data, based at `scratch`
.set VEC_TEST, 0x50
.set VEC_OTHER, 0x51

guest_main:
    plan 50
    movl $descriptors, %esi
    movl $gdt + SEL_FREE, %edi
    movl $14, %ecx
    rep
    movsl
    movl $local, %eax
    movw %ax, gdt + SEL_LDT + 2
    shrl $16, %eax
    movb %al, gdt + SEL_LDT + 4
    movl $scratch, %eax
    movw %ax, local + 0x10 + 2
    shrl $16, %eax
    movb %al, local + 0x10 + 4
    movl $VEC_TEST, %eax
    movl $plain_handler, %edx
    call gate_set
    movl $0xee, %edx
    call gate_type
    call nulling
    call local_table
    call segment_loads
    call beside_data
    call many
    call looked_at
    ret

plain_handler:
    iretl

# A return to ring 3 empties data segment registers that ring 3 may not use.
nulling:
    movl $SEL_KDATA, %eax
    movw %ax, %fs
    movl $SEL_UDATA, %eax
    movw %ax, %gs
    try 1f
    push_outer_flags SEL_UCODE, SEL_UDATA, read_segments
    iretl
1:  check_eq "IRET to ring 3 empties DS of ring 0", trap_ecx, $0
    check_eq "... and FS", trap_ebx, $0
    check_eq "... but not GS of ring 3", trap_edx, $SEL_UDATA
    movl $SEL_KDATA, %eax
    movw %ax, %fs
    try 1f
    push_outer SEL_UCODE, SEL_UDATA, read_segments
    lretl
1:  check_eq "RETF to ring 3 empties DS of ring 0", trap_ecx, $0
    check_eq "... and FS", trap_ebx, $0
    check_eq "... but not GS of ring 3", trap_edx, $SEL_UDATA
    movl $SEL_KDATA, %eax
    movw %ax, %fs
    movw %ax, %gs
    ret
read_segments:
    movl %ds, %ecx
    movl %fs, %ebx
    movl %gs, %edx
    int $VEC_LEAVE

local_table:
    movl $SEL_LDT, %eax
    lldt %ax
    movl $0x4c445421, scratch
    try 1f
    push_outer_flags LDT_CODE, SEL_UDATA, 2f
    movl $SEL_UDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    iretl
1:  expect_trap "ring 3 runs code of the LDT", VEC_LEAVE
    check_eq "... with its selector", trap_cs, $LDT_CODE
    check_eq "... which reaches data of the LDT", trap_ebx, $0x4c445421
    check_eq "... and is interrupted and resumed", trap_ecx, $7
    xorl %eax, %eax
    lldt %ax
    movl $SEL_KDATA, %eax
    movw %ax, %gs
    ret
2:  movl $LDT_DATA, %eax
    movw %ax, %gs
    movl %gs:0, %ebx
    movl $6, %ecx
    int $VEC_TEST
    incl %ecx
    int $VEC_LEAVE

segment_loads:
    movl $SEL_ABSENT_DATA, %ebx
    movl $SEL_READ_ONLY, %esi
    movl $SEL_EXECUTE, %edi
    fault "MOV DS, absent", VEC_NP, SEL_ABSENT_DATA, movw %bx, %ds
    fault "MOV SS, absent", VEC_SS, SEL_ABSENT_DATA, movw %bx, %ss
    fault "MOV SS, read-only", VEC_GP, SEL_READ_ONLY, movw %si, %ss
    fault "MOV ES, execute-only code", VEC_GP, SEL_EXECUTE, movw %di, %es
    movl $0x1003, %ebx
    xorl %esi, %esi
    fault "MOV FS, behind the GDT", VEC_GP, 0x1000, movw %bx, %fs
    fault "MOV SS, 0", VEC_GP, 0, movw %si, %ss
    fault "MOV DS, a TSS", VEC_GP, SEL_TSS, movw load_tss, %ds
    movl $SEL_KDATA, %ebx
    movl $SEL_KDATA + 3, %esi
    fault3 "ring 3: MOV DS, ring 0 data", VEC_GP, SEL_KDATA, movw %bx, %ds
    fault3 "ring 3: the same with RPL 3", VEC_GP, SEL_KDATA, movw %si, %ds
    fault3 "ring 3: MOV SS, ring 0 data", VEC_GP, SEL_KDATA, movw %bx, %ss
    fault3 "ring 3: LES, ring 0 data", VEC_GP, SEL_KDATA, les far_data, %eax
    movl %esp, own_stack
    xorl %eax, %eax
    lss own_stack, %esp
    movl %esp, %eax
    check_eq "LSS with the right selector", %eax, own_stack
    ret

# The GDT's page holds data, too. Events and returns find what descriptors say, however often that data is written.
beside_data:
    movl $VEC_OTHER, %eax
    movl $note_cs, %edx
    call gate_set
    movw $SEL_CODE_2, idt + 8 * VEC_OTHER + 2
    call other_handler
    check_eq "an event, the GDT's page written: its CS", seen_cs, $SEL_CODE_2
    movl $1000, %ebx
1:  incl BESIDE
    int $VEC_OTHER
    decl %ebx
    jnz 1b
    check_eq "... and 1,000 times", seen_count, $1001
    check_eq "... with what was written", BESIDE, $1000
    movl $0x00cf1a00, gdt + SEL_CODE_2 + 4
    fault "... absent now: #NP", VEC_NP, SEL_CODE_2, int $VEC_OTHER
    incl BESIDE
    fault "... and again", VEC_NP, SEL_CODE_2, int $VEC_OTHER
    movl $0x00cf9200, gdt + SEL_CODE_2 + 4
    fault "... data now: #GP", VEC_GP, SEL_CODE_2, int $VEC_OTHER
    movl $0x00cf9a00, gdt + SEL_CODE_2 + 4
    call other_handler
    check_eq "... code again: the handler", seen_count, $1002
    call other_ring3
    expect_trap "a return, the GDT's page written", VEC_LEAVE
    check_eq "... its CS", trap_cs, $SEL_UCODE_2
    check_eq "... its SS", trap_ss, $SEL_UDATA_2
    movl $0x00cff000, gdt + SEL_UDATA_2 - 3 + 4
    call other_ring3
    expect_trap "... its stack is read-only now: #GP", VEC_GP, SEL_UDATA_2 & ~3, other_return
    movl $0x00cff200, gdt + SEL_UDATA_2 - 3 + 4
    call other_ring3
    expect_trap "... may be written again", VEC_LEAVE
    movl $0x00cf7a00, gdt + SEL_UCODE_2 - 3 + 4
    call other_ring3
    expect_trap "... its code is absent now: #NP", VEC_NP, SEL_UCODE_2 & ~3, other_return
    movl $0x00cf9a00, gdt + SEL_UCODE_2 - 3 + 4
    call other_ring3
    expect_trap "... is the kernel's now: #GP", VEC_GP, SEL_UCODE_2 & ~3, other_return
    movl $0x00cffa00, gdt + SEL_UCODE_2 - 3 + 4
    call other_ring3
    expect_trap "... is the user's again", VEC_LEAVE
    check_eq "... with its CS", trap_cs, $SEL_UCODE_2
    check_eq "the data is as it was written", BESIDE, $1007
    movl $0x5e9, scratch
    movl $scratch - 0x1000, %esi
    incl BESIDE                         # the page is written; then the descriptor that SS holds
    movw $0x1000, gdt + SEL_KDATA + 2
    movl $SEL_KDATA, %eax
    movw %ax, %gs
    movl %gs:(%esi), %ebx
    movw $0, gdt + SEL_KDATA + 2
    pushl %ebx
    popl scratch + 4
    check_eq "SS's descriptor changed: GS has the new one", %ebx, $0x5e9
    check_eq "... and SS the old one", scratch + 4, $0x5e9
    movw %ax, %gs
    ret
# The frame is pushed before anything is written, so that no load of DS closes the page in between.
other_ring3:
    try 1f
    push_outer_flags SEL_UCODE_2, SEL_UDATA_2, leave_ring3
    incl BESIDE
other_return:
    iretl
1:  ret
leave_ring3:
    int $VEC_LEAVE
other_handler:
    int $VEC_OTHER
    ret
note_cs:
    movw %cs, seen_cs
    incl seen_count
    iretl

# Ring 3 loads more descriptors than anybody remembers. Its own two stay what they are.
many:
    movl $many_table, %edi
    movl $MANY, %ecx
1:  movl $0x0000ffff, (%edi)
    movl $0x00cff200, 4(%edi)
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $many_table, %eax
    movw $8 * MANY - 1, gdt + SEL_MANY
    movw %ax, gdt + SEL_MANY + 2
    shrl $16, %eax
    movb %al, gdt + SEL_MANY + 4
    movw $0x0082, gdt + SEL_MANY + 5
    movb %ah, gdt + SEL_MANY + 7
    movl $SEL_MANY, %eax
    lldt %ax
    run_ring3 many_loads
    expect_trap "ring 3 loads 400 descriptors", VEC_LEAVE
    check_eq "... and has its CS", trap_ecx, $SEL_UCODE
    check_eq "... and its SS", trap_ebx, $SEL_UDATA
    xorl %eax, %eax
    movw %ax, %gs
    lldt %ax
    ret
many_loads:
    movl $7, %edx
1:  movw %dx, %gs
    addl $8, %edx
    cmpl $8 * MANY, %edx
    jb 1b
    movl %cs, %ecx
    movl %ss, %ebx
    int $VEC_LEAVE

# Ring 3 looks at descriptors that nobody has loaded.
looked_at:
    movl $0x00000123, gdt + SEL_LIMIT
    movl $0x0000f300, gdt + SEL_LIMIT + 4
    run_ring3 looks
    check_eq "ring 3: LSL of what nobody has loaded", trap_ebx, $0x123
    check_eq "... LAR", trap_ecx, $0x0000f300
    check_eq "... VERR finds it", trap_edx, $1
    movl $0x00000456, gdt + SEL_LIMIT
    run_ring3 looks
    check_eq "... LSL when it was changed", trap_ebx, $0x456
    movl $0x00009300, gdt + SEL_LIMIT + 4
    run_ring3 looks
    check_eq "... nothing when it is the kernel's", trap_ebx, $0x5eed
    check_eq "... nor does VERR", trap_edx, $0
    ret
looks:
    movl $SEL_LIMIT + 3, %eax
    movl $0x5eed, %ebx
    lsl %eax, %ebx
    lar %eax, %ecx
    xorl %edx, %edx
    verr %ax
    setz %dl
    int $VEC_LEAVE

.data
.balign 8
descriptors:
    .quad 0x0000820000000017            # LDT: three descriptors
    .quad 0x00cf12000000ffff            # absent ring 0 data
    .quad 0x00cf90000000ffff            # read-only ring 0 data
    .quad 0x00cf98000000ffff            # execute-only ring 0 code
    .quad 0x00cf9a000000ffff            # ring 0 code
    .quad 0x00cffa000000ffff            # ring 3 code
    .quad 0x00cff2000000ffff            # ring 3 data
local:
    .quad 0
    .quad 0x00cffa000000ffff
    .quad 0x0040f2000000000f
far_data: .long 0
    .word SEL_KDATA
own_stack: .long 0
    .word SEL_KDATA
load_tss: .word SEL_TSS
.bss
.balign 4
scratch: .space 16
seen_cs: .space 4
seen_count: .space 4
.balign 8
many_table: .space 8 * MANY
