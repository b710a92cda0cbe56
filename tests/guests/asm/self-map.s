# The last directory entry points to the directory: its tables appear at 0xffc00000, itself at 0xfffff000.

.set TABLES, 0xffc00000
.set DIRECTORY, 0xfffff000
.set LAZY, 0x40000000
.set RW, PTE_P | PTE_W
.set RWU, PTE_P | PTE_W | PTE_U

# EAX: linear address. EAX: the linear address of its entry.
.macro entry_of
    shrl $12, %eax
    leal TABLES(, %eax, 4), %eax
.endm

guest_main:
    plan 24
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl %eax, %ebx
    leal RW(%eax), %edx
    movl %edx, 0xffc(%eax)
    call paging_on
    movl DIRECTORY + 0xffc, %eax
    andl $~0xfff, %eax
    check_eq "the directory's last entry is the directory", %eax, %ebx
    movl DIRECTORY, %eax
    andl $~(PTE_A | PTE_D), %eax
    movl (%ebx), %edx
    andl $~(PTE_A | PTE_D), %edx
    check_eq "its first entry, seen through the map", %eax, %edx
    movl $0x00100000, %eax
    entry_of
    movl (%eax), %eax
    andl $~0xfff, %eax
    check_eq "the entry of the kernel's first page", %eax, $0x00100000
    run_ring3 3f
    expect_trap "ring 3 does not see the tables", VEC_PF, PF_P | PF_U, 3f, DIRECTORY

    # A new table through the map: first the directory entry, then the entry in a table that appears there.
    try 1f
2:  movl TABLES + (LAZY >> 10), %eax
1:  expect_trap "the entries of a missing table are missing", VEC_PF, 0, 2b, TABLES + (LAZY >> 10)
    call alloc_frame
    movl %eax, %esi
    orl $RWU, %eax
    movl %eax, DIRECTORY + (LAZY >> 20)
    movl TABLES + (LAZY >> 10), %eax
    check_eq "a new table is there, empty", %eax, $0
    movl $0x01000000 | RWU, TABLES + (LAZY >> 10)
    movl $0x1234, LAZY
    check_eq "its first page works", LAZY, $0x1234
    movl (%esi), %eax
    andl $PTE_A | PTE_D, %eax
    check_eq "... with A and D in the entry", %eax, $PTE_A | PTE_D
    movl TABLES + (LAZY >> 10), %eax
    andl $PTE_A | PTE_D, %eax
    check_eq "... seen through the map as well", %eax, $PTE_A | PTE_D
    movl DIRECTORY + (LAZY >> 20), %eax
    andl $PTE_A | PTE_D, %eax
    check_eq "the directory entry has A, and D since it is a table's entry in the map", %eax, $PTE_A | PTE_D
    movl DIRECTORY + 0xffc, %eax
    andl $PTE_A | PTE_D, %eax
    check_eq "the last entry has A and D: it was used to write to the directory", %eax, $PTE_A | PTE_D

    # Entries changed through the map.
    movl $0x01001000 | RWU, TABLES + (LAZY >> 10)
    invlpg LAZY
    movl $0x5678, LAZY
    movl $0x01000000 | RWU, TABLES + (LAZY >> 10)
    invlpg LAZY
    check_eq "the frame exchanged through the map", LAZY, $0x1234
    andl $~PTE_W, TABLES + (LAZY >> 10)
    invlpg LAZY
    try 1f
2:  movl $1, LAZY
1:  expect_trap "write right taken away through the map", VEC_PF, PF_P | PF_W, 2b, LAZY
    andl $~PTE_U, DIRECTORY + (LAZY >> 20)
    invlpg LAZY
    run_ring3 4f
    expect_trap "user right taken away in the directory", VEC_PF, PF_P | PF_U, 4f, LAZY
    orl $PTE_U, DIRECTORY + (LAZY >> 20)
    invlpg LAZY

    # Demand paging by a handler that knows only the map.
    hook VEC_PF, on_page_fault
    run_ring3 5f
    hook VEC_PF, 0
    expect_trap "ring 3 touches 300 pages over two tables", VEC_LEAVE
    check_eq "... with 300 faults", faults, $300
    check_eq "... in two new tables", tables, $2
    movl $LAZY + 0x800000 - 150 * 4096 + 0x400000, %edi
    xorl %edx, %edx
    movl $300, %ecx
1:  movl (%edi), %eax
    subl %edi, %eax
    orl %eax, %edx
    addl $8192 + 4096, %edi
    loop 1b
    check_eq "... and each keeps its value", %edx, $0

    # Another directory seen through entry 1022 while this one is active.
    call alloc_frame
    movl %eax, %esi
    orl $RW, %eax
    movl %eax, DIRECTORY + 0xff8
    movl $0xffbfe000, %edi              # the other directory: entry 1022's table number 1022 is entry 1022 of it
    movl %esi, %eax
    orl $RW, %eax
    movl %eax, 0xff8(%esi)
    movl %eax, 0xffc(%esi)
    movl %cr3, %eax
    movl %eax, %cr3
    movl 0xff8(%edi), %eax
    andl $~0xfff, %eax
    check_eq "another directory through entry 1022", %eax, %esi
    movl DIRECTORY, %eax
    movl %eax, (%edi)                   # the kernel's entries
    movl DIRECTORY + 4, %eax
    movl %eax, 4(%edi)
    movl DIRECTORY + (LAZY >> 20), %eax
    movl %eax, (LAZY >> 20)(%edi)
    movl %esi, %cr3
    movl LAZY, %ebx
    check_eq "... filled there and switched to", %ebx, $0x1234
    movl DIRECTORY + 0xffc, %eax
    andl $~0xfff, %eax
    check_eq "... where it maps itself", %eax, %esi
    movl page_directory, %eax
    movl %eax, %cr3

    # The map removed by itself.
    movl $0, DIRECTORY + 0xffc
    movl %cr3, %eax
    movl %eax, %cr3
    try 1f
2:  movl DIRECTORY, %eax
1:  expect_trap "the map removed through itself", VEC_PF, 0, 2b, DIRECTORY
    movl page_directory, %ebx
    leal RW(%ebx), %eax
    movl %eax, 0xffc(%ebx)
    movl DIRECTORY + 0xffc, %eax
    andl $~0xfff, %eax
    check_eq "... and put back", %eax, %ebx
    check_eq "the pages are as they were", LAZY, $0x1234
    ret

3:  movl DIRECTORY, %eax
    int $VEC_LEAVE
4:  movl LAZY, %eax
    int $VEC_LEAVE
5:  movl $LAZY + 0x800000 - 150 * 4096 + 0x400000, %edi
    movl $300, %ecx
1:  movl %edi, (%edi)
    addl $8192 + 4096, %edi
    loop 1b
    int $VEC_LEAVE

on_page_fault:
    incl faults
    movl trap_cr2, %ebx
    shrl $22, %ebx
    testl $PTE_P, DIRECTORY(, %ebx, 4)
    jnz 1f
    incl tables
    call alloc_frame
    orl $RWU, %eax
    movl %eax, DIRECTORY(, %ebx, 4)
1:  movl next_data_frame, %edx
    addl $0x1000, next_data_frame
    orl $RWU, %edx
    movl trap_cr2, %eax
    entry_of
    movl %edx, (%eax)
    ret

.data
.balign 4
next_data_frame: .long 0x01100000
.bss
.balign 4
faults: .space 4
tables: .space 4
