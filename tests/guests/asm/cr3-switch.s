# Page directories: switched, shared, changed while inactive, freed and used again.

.set WINDOW, 0x40000000                 # private to each directory
.set SHARED, 0x40400000                 # the same page table in all of them
.set FRAMES, 0x01000000                 # one for each directory
.set COUNT, 48

guest_main:
    plan 13
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl %eax, kernel_directory
    call paging_on
    movl $SHARED, %eax
    movl $FRAMES + 63 * 0x1000 | PTE_P | PTE_W | PTE_U, %edx
    call map_page

    # COUNT directories: copies of the kernel's, with an own window.
    xorl %esi, %esi
1:  call make_directory
    incl %esi
    cmpl $COUNT, %esi
    jne 1b

    # Each one writes its number, twice around; then each one reads it.
    movl $2, %ebx
3:  xorl %esi, %esi
2:  movl directories(, %esi, 4), %eax
    movl %eax, %cr3
    addl %esi, WINDOW
    incl SHARED
    incl %esi
    cmpl $COUNT, %esi
    jne 2b
    decl %ebx
    jnz 3b
    xorl %edi, %edi
    movl $COUNT, %esi
4:  decl %esi
    movl directories(, %esi, 4), %eax
    movl %eax, %cr3
    movl WINDOW, %eax
    subl %esi, %eax
    subl %esi, %eax
    orl %eax, %edi
    testl %esi, %esi
    jnz 4b
    check_eq "48 directories, each with its own page", %edi, $0
    check_eq "... and one shared by all", SHARED, $2 * COUNT
    movl %cr3, %eax
    check_eq "CR3 reads back the directory", %eax, directories

    # A change in a directory that is not active.
    movl directories + 4, %ebx
    movl (WINDOW >> 22) * 4(%ebx), %ebx
    andl $~0xfff, %ebx                  # the second directory's table
    movl $FRAMES + 7 * 0x1000 | PTE_P | PTE_W | PTE_U, (%ebx)
    movl directories + 4, %eax
    movl %eax, %cr3
    movl WINDOW, %esi
    check_eq "a change made while inactive counts", %esi, $14
    movl $0, (%ebx)
    movl %eax, %cr3
    try 1f
2:  movl WINDOW, %eax
1:  expect_trap "a removal followed by the same CR3 counts", VEC_PF, 0, 2b, WINDOW
    movl $FRAMES + 1 * 0x1000 | PTE_P | PTE_W | PTE_U, (%ebx)
    movl WINDOW, %esi
    check_eq "a page that appears needs no flush", %esi, $2

    # The shared table changes for all.
    movl $SHARED, %eax
    movl $FRAMES + 5 * 0x1000 | PTE_P | PTE_W | PTE_U, %edx
    movl kernel_directory, %ecx
    movl %ecx, page_directory
    call map_page
    xorl %esi, %esi
    xorl %edi, %edi
1:  movl directories(, %esi, 4), %eax
    movl %eax, %cr3
    movl SHARED, %eax
    subl $10, %eax
    orl %eax, %edi
    incl %esi
    cmpl $COUNT, %esi
    jne 1b
    check_eq "a change in the shared table counts in all directories", %edi, $0

    # A whole table replaced in an inactive directory.
    movl kernel_directory, %eax
    movl %eax, %cr3
    call alloc_frame
    movl $FRAMES + 9 * 0x1000 | PTE_P | PTE_W | PTE_U, (%eax)
    orl $PTE_P | PTE_W | PTE_U, %eax
    movl directories + 8, %ebx
    movl %eax, (WINDOW >> 22) * 4(%ebx)
    movl %ebx, %cr3
    movl WINDOW, %esi
    check_eq "a table replaced while inactive counts", %esi, $18

    # A table removed from the active directory.
    movl $0, (WINDOW >> 22) * 4(%ebx)
    movl %ebx, %cr3
    try 1f
2:  movl WINDOW, %eax
1:  expect_trap "a table removed counts after CR3", VEC_PF, 0, 2b, WINDOW

    # A directory is freed: its frame becomes data, then a directory again.
    movl kernel_directory, %eax
    movl %eax, %cr3
    movl directories + 12, %ebx
    movl %ebx, %edi
    movl $1024, %ecx
    movl $0x5a5a5a5b, %eax
    rep
    stosl
    xorl %eax, %eax
    xorl %ecx, %ecx
1:  addl (%ebx, %ecx, 4), %eax
    incl %ecx
    cmpl $1024, %ecx
    jne 1b
    check_eq "a freed directory's frame holds data", %eax, $(0x5a5a5a5b * 1024) & 0xffffffff
    movl kernel_directory, %esi
    movl %ebx, %edi
    movl $1024, %ecx
    rep
    movsl
    movl directories + 16, %eax
    movl (WINDOW >> 22) * 4(%eax), %eax
    movl %eax, (WINDOW >> 22) * 4(%ebx)
    movl %ebx, %cr3
    movl WINDOW, %esi
    check_eq "... and is a directory again, sharing another one's table", %esi, $8

    # Ring 3 in two address spaces.
    movl directories + 20, %eax
    movl %eax, %cr3
    run_ring3 3f
    movl trap_ebx, %esi
    movl directories + 24, %eax
    movl %eax, %cr3
    run_ring3 3f
    check_eq "ring 3 in one space", %esi, $10
    check_eq "... and in the next", trap_ebx, $12
    ret
3:  movl WINDOW, %ebx
    int $VEC_LEAVE

# Makes directories[ESI].
make_directory:
    call alloc_frame
    movl %eax, directories(, %esi, 4)
    movl %eax, %ebx
    pushl %esi
    movl kernel_directory, %esi
    movl %eax, %edi
    movl $1024, %ecx
    rep
    movsl
    popl %esi
    call alloc_frame
    movl %esi, %edx
    shll $12, %edx
    addl $FRAMES + (PTE_P | PTE_W | PTE_U), %edx
    movl %edx, (%eax)
    orl $PTE_P | PTE_W | PTE_U, %eax
    movl %eax, (WINDOW >> 22) * 4(%ebx)
    movl %ebx, %eax                     # its page starts as zero
    movl %eax, %cr3
    movl $0, WINDOW
    ret

.bss
.balign 4
kernel_directory: .space 4
directories: .space 4 * COUNT
