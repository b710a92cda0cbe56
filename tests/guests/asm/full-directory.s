# A kernel that begins with a page directory of 1024 large pages, as small kernels and test suites do: no address is left that the
# guest maps nothing at. First all 4 GiB are mapped one to one, so that most of it is no memory; then everything is memory, by aliases;
# then every entry has a page table. With `probe=reads` the kernel also reads where a monitor could have put something of its own, which a
# CPU without keys for supervisor pages cannot hide, and there may be memory everywhere.

.set FLAGS, PTE_P | PTE_W | PTE_U | PTE_A | PTE_D | PDE_PS | PTE_G
.set PTE_G, 0x100
.set LARGE_PAGE, 0x00400000
.set MEMORY, 8                          # large pages of memory
.set NO_MEMORY, 0x10000000              # none from here on
.set DEVICES, 0xe0000000                # some, perhaps, from here on
.set COPY, 0x01000000                   # a large page of memory that nobody uses
.set LAPIC, 0xfee00000
.set L_VERSION, LAPIC + 0x30
.set L_TPR, LAPIC + 0x80
.set L_EOI, LAPIC + 0xb0
.set L_SVR, LAPIC + 0xf0
.set L_ICR, LAPIC + 0x300
.set TO_SELF, 0x40000
.set VEC_SELF, 0x41

# Empties the TLB, of global pages as well. No stack: that may just have moved.
.macro flush
    movl %cr4, %eax
    andl $~CR4_PGE, %eax
    movl %eax, %cr4
    orl $CR4_PGE, %eax
    movl %eax, %cr4
.endm

guest_main:
    movl $key_probe, %eax
    call argument
    testl %eax, %eax
    jz 1f
    cmpb $'r', (%eax)
    sete reads
1:  cmpl $0, reads
    jne 1f
    plan 36
    jmp 2f
1:  plan 44
2:
    call alloc_frame
    movl %eax, page_directory
    call map_one_to_one
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    movl page_directory, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $CR0_PG, %eax                   # WP comes later
    movl %eax, %cr0
    hook VEC_SELF, on_self
    call sensitive
    call devices
    call memory
    call nothing
    call interrupts
    movl %cr0, %eax
    orl $CR0_WP, %eax
    movl %eax, %cr0
    call faults
    call ring3
    call split
    call moved
    cmpl $0, reads
    je 1f
    call everything_is_memory
1:  call tables_everywhere
    ret

# Entry N maps N * 4 MiB.
map_one_to_one:
    movl page_directory, %edi
    movl $FLAGS, %eax
    movl $1024, %ecx
1:  stosl
    addl $LARGE_PAGE, %eax
    loop 1b
    ret

sensitive:
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "PUSHF shows IF=0", %eax, $0
    sti
    pushfl
    cli
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "... IF=1 after STI", %eax, $EFLAGS_IF
    pushl $2 | EFLAGS_IF
    popfl
    pushfl
    cli
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "... and after POPF", %eax, $EFLAGS_IF
    xorl %eax, %eax
    movw %cs, %ax
    check_eq "CS is that of ring 0", %eax, $SEL_KCODE
    xorl %eax, %eax
    pushl %cs
    popl %eax
    movzwl %ax, %eax
    check_eq "... pushed as well", %eax, $SEL_KCODE
    subl $8, %esp
    sidt 2(%esp)
    movl 4(%esp), %eax
    addl $8, %esp
    check_eq "SIDT gives the table", %eax, $idt
    smsw %eax
    andl $CR0_PE, %eax
    check_eq "SMSW shows PE", %eax, $CR0_PE
    ret

devices:
    movl $L_VERSION, %edx
    movl (%edx), %eax
    shrb $4, %al
    movzbl %al, %eax
    check_eq "the local APIC is there", %eax, $1
    movl $L_TPR, %edx
    movl $0x70, (%edx)
    movl (%edx), %eax
    check_eq "... keeps a task priority", %eax, $0x70
    movl $0, (%edx)
    inb $0x21, %al                      # all masked by the runtime
    movzbl %al, %eax
    check_eq "an I/O port is read", %eax, $0xff
    ret

memory:
    movl $COPY, %ebx
    movl $MEMORY - 4, %ecx
1:  movl %ebx, 0x1234(%ebx)
    addl $LARGE_PAGE, %ebx
    loop 1b
    xorl %eax, %eax
    movl $COPY, %ebx
    movl $MEMORY - 4, %ecx
1:  addl 0x1234(%ebx), %eax
    addl $LARGE_PAGE, %ebx
    loop 1b
    check_eq "memory in four large pages", %eax, $4 * COPY + 6 * LARGE_PAGE
    ret

# What is read where nothing is depends on the machine, but it is the same everywhere, and no write changes it.
nothing:
    movl $NO_MEMORY, %ebx
    movl (%ebx), %esi
    call write_nothing
    movl $nothing_of_ring3, %eax
    call enter_ring3
    check_eq "where no memory is, ring 3 reads the same everywhere, also where code would be", trap_edi, $0
    cmpl $0, reads
    je 2f
    movl $NO_MEMORY, %ebx
    xorl %edi, %edi
1:  movl nothing(%ebx), %eax
    xorl %esi, %eax
    orl %eax, %edi
    addl $LARGE_PAGE, %ebx
    cmpl $DEVICES, %ebx
    jb 1b
    check_eq "... and so does the kernel", %edi, $0
    call write_nothing
2:  ret

# EBX: where to begin.
write_nothing:
    pushl %ebx
1:  movl %ebx, nothing(%ebx)
    addl $LARGE_PAGE, %ebx
    cmpl $DEVICES, %ebx
    jb 1b
    popl %ebx
    ret

# ESI: what is read.
nothing_of_ring3:
    movl $NO_MEMORY, %ebx
    xorl %edi, %edi
1:  movl nothing(%ebx), %eax
    xorl %esi, %eax
    orl %eax, %edi
    movl %ebx, nothing(%ebx)
    movl nothing(%ebx), %eax
    xorl %esi, %eax
    orl %eax, %edi
    addl $LARGE_PAGE, %ebx
    cmpl $DEVICES, %ebx
    jb 1b
    int $VEC_LEAVE

interrupts:
    movl $L_SVR, %edx
    movl $0x1ff, (%edx)
    movl $L_ICR, %edx
    movl $TO_SELF | VEC_SELF, (%edx)
    check_eq "an interrupt to itself waits for STI", arrived, $0
    sti
    nop
    cli
    check_eq "... and comes", arrived, $1
    hook VEC_IRQ0, on_tick
    movl $11932, %eax                   # 100 Hz
    call pit_start
    movb $0xfe, %al
    outb %al, $PIC1 + 1
1:  sti
    hlt
    cli
    cmpl $3, ticks
    jb 1b
    movb $0xff, %al
    outb %al, $PIC1 + 1
    check_eq "ticks come, and wake from HLT", $1, $1
    ret

on_self:
    incl arrived
    movl $L_EOI, %edx
    movl $0, (%edx)
    ret

faults:
    movl page_directory, %ebp
    addl $(COPY >> 22) * 4, %ebp
    andl $~PTE_P, (%ebp)
    movl $COPY, %ebx
    invlpg (%ebx)
    try 1f
2:  movl 0x1234(%ebx), %eax
1:  expect_trap "a large page gone: a read faults", VEC_PF, 0, 2b, COPY + 0x1234
    xorl $PTE_P | PTE_W, (%ebp)
    try 1f
2:  movl %eax, 0x1234(%ebx)
1:  expect_trap "read-only: a write faults", VEC_PF, PF_P | PF_W, 2b, COPY + 0x1234
    try 1f
    movl 0x1234(%ebx), %eax
1:  expect_no_trap "... a read does not"
    xorl $PTE_U | PTE_W, (%ebp)
    invlpg (%ebx)
    run_ring3 read_copy
    expect_trap "supervisor: ring 3 may not read", VEC_PF, PF_P | PF_U, read_copy, COPY + 0x1234
    orl $PTE_U, (%ebp)
    invlpg (%ebx)
    # The same where no memory is, and where the kernel's code could be fetched from.
    movl page_directory, %ebp
    movl $NO_MEMORY, %ebx
    xorl %esi, %esi                     # faults
3:  movl %ebx, %edi
    shrl $22, %edi
    andl $~PTE_P, (%ebp, %edi, 4)
    invlpg (%ebx)
    pushl %ebx
    pushl %esi
    addl $faults, %ebx
    try 1f
    call touch
1:  popl %esi
    popl %ebx
    cmpl $VEC_PF, trap_vector
    jne 4f
    incl %esi
4:  orl $PTE_P, (%ebp, %edi, 4)
    addl $LARGE_PAGE, %ebx
    cmpl $DEVICES, %ebx
    jb 3b
    check_eq "each of the others gone, one at a time: an access faults", %esi, $(DEVICES - NO_MEMORY) / LARGE_PAGE
    ret

# EBX: an address that is read, or written where a monitor could show something of its own.
touch:
    cmpl $0, reads
    je 1f
    movl (%ebx), %eax
    ret
1:  movl %eax, (%ebx)
    ret

read_copy:
    movl COPY + 0x1234, %eax
    int $VEC_LEAVE

ring3:
    run_ring3 1f
    expect_trap "ring 3 runs", VEC_LEAVE
    check_eq "... and has written", COPY + 0x2000, $0x1001
    run_ring3 2f
    expect_trap "... may not CLI", VEC_GP, 0, 2f
    movl $EFLAGS_IF | 2, ring3_eflags
    movl $L_ICR, %edx
    movl $TO_SELF | VEC_SELF, (%edx)
    movl $1f, %eax
    call enter_ring3_flags
    check_eq "... is interrupted", arrived, $2
    ret
1:  movl $0x1000, COPY + 0x2000
    incl COPY + 0x2000
    int $VEC_LEAVE
2:  cli
    int $VEC_LEAVE

# The large page of the code that runs becomes small pages, and one of them is moved.
split:
    call alloc_frame
    movl %eax, %esi
    movl $PTE_P | PTE_W | PTE_U, %eax
    movl %esi, %edi
    movl $1024, %ecx
1:  stosl
    addl $4096, %eax
    loop 1b
    movl page_directory, %ebp
    leal PTE_P | PTE_W | PTE_U(%esi), %eax
    movl %eax, (%ebp)
    flush
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "the code's own large page split: it goes on", %eax, $0
    call answer
    check_eq "... a function of its own page", %eax, $1
    # A copy of that page, which answers something else.
    movl $answer, %esi
    movl $COPY + 0x5000, %edi
    movl $1024, %ecx
    rep
    movsl
    movb $2, COPY + 0x5001
    movl (%ebp), %esi
    andl $0xfffff000, %esi
    movl $answer, %ecx
    shrl $12, %ecx
    movl $COPY + 0x5000 | PTE_P | PTE_W | PTE_U, (%esi, %ecx, 4)
    movl $answer, %eax
    invlpg (%eax)
    call answer
    check_eq "... which is another page's now", %eax, $2
    movb $3, COPY + 0x5001
    call answer
    check_eq "... and changes when that is written", %eax, $3
    movl $0 | FLAGS, (%ebp)
    flush
    call answer
    check_eq "joined again", %eax, $1
    ret

# The code's large page goes to other frames: a copy of it.
moved:
    xorl %esi, %esi
    movl $COPY, %edi
    movl $0xa0000 / 4, %ecx
    rep
    movsl
    movl $0x100000, %esi
    movl $COPY + 0x100000, %edi
    movl $(LARGE_PAGE - 0x100000) / 4, %ecx
    rep
    movsl
    movb $4, COPY + answer + 1
    movl page_directory, %ebp
    movl $COPY | FLAGS, (%ebp)
    flush
    call answer
    movl $0 | FLAGS, (%ebp)
    movl %eax, %ebx
    flush                               # here what the copy of the stack has ends
    check_eq "the code's large page moved to a copy", %ebx, $4
    call answer
    check_eq "... and back", %eax, $1
    ret

# Entry N maps large page N mod MEMORY: no address is without memory, but the local APIC's.
everything_is_memory:
    movl page_directory, %edi
    xorl %ecx, %ecx
1:  cmpl $LAPIC >> 22, %ecx
    je 2f
    movl %ecx, %eax
    andl $MEMORY - 1, %eax
    shll $22, %eax
    orl $FLAGS, %eax
    movl %eax, (%edi, %ecx, 4)
2:  incl %ecx
    cmpl $1024, %ecx
    jne 1b
    flush
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "all 4 GiB are memory: PUSHF shows IF=0", %eax, $0
    call aliases
    movl $L_ICR, %edx
    movl $TO_SELF | VEC_SELF, (%edx)
    sti
    nop
    cli
    check_eq "... an interrupt to itself comes", arrived, $3
    run_ring3 3f
    expect_trap "... ring 3 runs", VEC_LEAVE
    call answer
    check_eq "... code runs at its place", %eax, $1
    # Code at every place: the function is called by each of its names.
    movl $answer, %ebx
    xorl %esi, %esi
1:  movl %ebx, %eax
    shrl $22, %eax
    cmpl $LAPIC >> 22, %eax
    je 2f
    call *%ebx
    addl %eax, %esi
2:  addl $MEMORY * LARGE_PAGE, %ebx
    jnc 1b
    check_eq "... and by 128 names", %esi, $128
    ret
3:  pushfl
    popl %eax
    int $VEC_LEAVE

# The code's own bytes, read by each of their names; and a word that is written by each and read by the first. ESI: the bytes. EDI
# becomes other than 0 if one is wrong.
.macro try_aliases
    xorl %edi, %edi
    xorl %ebx, %ebx
1:  movl aliases(%ebx), %eax
    xorl %esi, %eax
    orl %eax, %edi
    movl %ebx, alias_word(%ebx)
    movl alias_word, %eax
    xorl %ebx, %eax
    orl %eax, %edi
    addl $MEMORY * LARGE_PAGE, %ebx
    jnc 1b
.endm

aliases:
    movl aliases, %esi
    try_aliases
    check_eq "... code is read by 128 names, and a word is written", %edi, $0
    movl $alias_of_ring3, %eax
    call enter_ring3
    check_eq "... the same in ring 3", trap_edi, $0
    ret

alias_of_ring3:
    try_aliases
    int $VEC_LEAVE

# Each entry has a page table: eight of them, one for each large page of memory, and the one before the last is empty.
tables_everywhere:
    movl page_directory, %ebp
    movl $PTE_P | PTE_W | PTE_U, %ebx
    xorl %esi, %esi
1:  call alloc_frame
    leal PTE_P | PTE_W | PTE_U(%eax), %edx
    movl %edx, tables(, %esi, 4)
    cmpl $MEMORY - 2, %esi
    je 3f
    movl %eax, %edi
    movl $1024, %ecx
2:  movl %ebx, %eax
    stosl
    addl $4096, %ebx
    loop 2b
    jmp 4f
3:  addl $LARGE_PAGE, %ebx
4:  incl %esi
    cmpl $MEMORY, %esi
    jne 1b
    xorl %ecx, %ecx
1:  cmpl $LAPIC >> 22, %ecx
    je 2f
    movl %ecx, %eax
    andl $MEMORY - 1, %eax
    movl tables(, %eax, 4), %eax
    movl %eax, (%ebp, %ecx, 4)
2:  incl %ecx
    cmpl $1024, %ecx
    jne 1b
    flush
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "a table in every entry: PUSHF shows IF=0", %eax, $0
    # Where the tables are empty, nothing is reached.
    movl $(MEMORY - 2) * LARGE_PAGE, %ebx
    xorl %edi, %edi
1:  pushl %ebx
    addl $tables_everywhere, %ebx
    try 2f
    call touch
2:  popl %ebx
    cmpl $VEC_PF, trap_vector
    jne 3f
    incl %edi
3:  addl $MEMORY * LARGE_PAGE, %ebx
    jnc 1b
    check_eq "... and no page where a table is empty, 128 times", %edi, $128
    call aliases
    movl $0, arrived
    movl $L_ICR, %edx
    movl $TO_SELF | VEC_SELF, (%edx)
    sti
    nop
    cli
    check_eq "... an interrupt to itself comes", arrived, $1
    ret

# A page with one function: `movl $1, %eax; ret`.
.balign 4096
answer:
    movl $1, %eax
    ret
.balign 4096

.section .rodata
key_probe: .asciz "probe="

.data
.balign 4
reads: .long 0
arrived: .long 0
alias_word: .long 0
tables: .space 4 * MEMORY
