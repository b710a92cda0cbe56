# Paging switched on and off, with changes to the tables in between.

.set WINDOW, 0x40000000                 # mapped to FIRST, SECOND...
.set FIRST,  0x01000000
.set SECOND, 0x01005000

guest_main:
    plan 14
    movl $0x11111111, FIRST
    movl $0x22222222, SECOND
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl $WINDOW, %eax
    call pte_of
    movl %eax, entry
    movl $FIRST | PTE_P | PTE_W | PTE_U, (%eax)

    call paging_on
    movl WINDOW, %ebx
    check_eq "on: the window shows the first page", %ebx, $0x11111111
    movl $0x1a1a1a1a, WINDOW
    call paging_off
    check_eq "off: the page has what was written on it", FIRST, $0x1a1a1a1a
    movl $0x1b1b1b1b, FIRST
    call paging_on
    movl WINDOW, %ebx
    check_eq "on: the window has what was written to the page", %ebx, $0x1b1b1b1b

    # A change while paging is off: turning it on again drops what was cached.
    call paging_off
    movl entry, %ebx
    movl $SECOND | PTE_P | PTE_W | PTE_U, (%ebx)
    call paging_on
    movl WINDOW, %ebx
    check_eq "on: an entry changed meanwhile counts", %ebx, $0x22222222
    call paging_off
    movl entry, %ebx
    movl $0, (%ebx)
    call paging_on
    try 1f
2:  movl WINDOW, %eax
1:  expect_trap "on: an entry removed meanwhile counts", VEC_PF, 0, 2b, WINDOW
    call paging_off

    # CR3 may point anywhere while paging is off.
    movl page_directory, %ebx
    movl $0x00fff000, %eax
    movl %eax, %cr3
    movl FIRST, %esi
    check_eq "off: CR3 does not matter", %esi, $0x1b1b1b1b
    movl %ebx, %cr3
    try 1f
    movl $0x40, FIRST + 0x3000          # the page of no entry at all
1:  expect_no_trap "off: memory without entries is there"
    movl $FIRST, %eax                   # a read-only page of ring 0 does not bind anybody when paging is off
    movl $FIRST | PTE_P, %edx
    call pte_of
    movl %edx, (%eax)
    run_ring3 3f
    expect_trap "off: ring 3 may write everywhere", VEC_LEAVE
    call paging_on
    run_ring3 3f
    expect_trap "on: it may not", VEC_PF, PF_P | PF_W | PF_U, 3f, FIRST
    call paging_off

    # Two directories, alternating, each with its own page in the window.
    movl entry, %ebx
    movl $FIRST | PTE_P | PTE_W | PTE_U, (%ebx)
    movl page_directory, %eax
    movl %eax, directories
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl %eax, directories + 4
    movl $WINDOW, %eax
    call pte_of
    movl $SECOND | PTE_P | PTE_W | PTE_U, (%eax)
    movl $0, FIRST
    movl $0x1000000, SECOND
    xorl %edi, %edi
4:  movl %edi, %eax
    andl $1, %eax
    movl directories(, %eax, 4), %eax
    movl %eax, page_directory
    call paging_on
    incl WINDOW
    call paging_off
    incl %edi
    cmpl $500, %edi
    jne 4b
    check_eq "500 rounds on and off: the first directory's page", FIRST, $250
    check_eq "... and the second's", SECOND, $0x1000000 + 250
    movl %cr0, %eax
    andl $CR0_PG | CR0_PE, %eax
    check_eq "CR0 says that paging is off", %eax, $CR0_PE
    call paging_on
    movl %cr0, %eax
    andl $CR0_PG | CR0_PE, %eax
    check_eq "CR0 says that paging is on", %eax, $CR0_PG | CR0_PE
    movl %cr3, %eax
    check_eq "CR3 has the directory", %eax, page_directory
    ret

3:  movl %eax, FIRST
    int $VEC_LEAVE

.bss
.balign 4
entry: .space 4
directories: .space 8
