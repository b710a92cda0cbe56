# PAE paging: entries of 8 bytes and their halves, 2 MiB pages, NX, the four PDPTEs, several PDPTs in one frame.
#
# Not asked, for QEMU differs from processors: what a PDPTE does before CR3 is loaded again (QEMU reads it at each walk), whether
# PDPTEs get marks (QEMU sets A) or may have reserved bits, and whether a fault for a reserved bit reports the page as present.

.set WINDOW, 0x40000000                 # mapped by the table at ESI
.set LARGE, 0x40200000                  # a 2 MiB page, by the second entry of the directory at EDI
.set OTHER, 0x80000000                  # the third PDPTE
.set SELF, 0x7fe00000                   # the directory as its own table
.set FRAME, 0x01000000
.set FRAME2, FRAME + 0x1000
.set RWU, PTE_P | PTE_W | PTE_U
.set AD, PTE_A | PTE_D
.set PF_R, 8                            # ... a reserved bit was set; compared without PF_P
.set NO_P, 0xfffffffe
.set PF_I, 16                           # ... the access was a fetch
.set CR4_PAE, 0x20
.set MSR_EFER, 0xc0000080
.set EFER_NXE, 0x800

# entry table, offset, low, high: writes both halves, the low one last.
.macro entry table, offset, low, high=$0
    movl \high, \offset + 4(\table)
    movl \low, \offset(\table)
.endm

.macro reload_cr3
    movl %cr3, %eax
    movl %eax, %cr3
.endm

# shows "text", address, value: the word there.
.macro shows text, address, value
    movl \address, %ebx
    check_eq "\text", %ebx, $\value
.endm

# marks "text", operand, value: A and D of an entry.
.macro marks text, operand, value
    movl \operand, %eax
    andl $AD, %eax
    check_eq "\text", %eax, $\value
.endm

# read_faults "text", address, error, mask of the error
.macro read_faults text, address, error, mask=NONE
    try .Lafter_\@
.Lat_\@:
    movl \address, %eax
.Lafter_\@:
    expect_trap "\text", VEC_PF, \error, .Lat_\@, \address, \mask
.endm

.macro write_faults text, address, error, mask=NONE
    try .Lafter_\@
.Lat_\@:
    movl %eax, \address
.Lafter_\@:
    expect_trap "\text", VEC_PF, \error, .Lat_\@, \address, \mask
.endm

guest_main:
    plan 52
    call build
    call pae_on
    call mapping
    call rights
    call large_pages
    call halves
    call no_execute
    call pointers
    call self_map
    call off_and_on
    ret

# Identity for 8 MiB, and an empty table for the window. EBP: PDPT, EDI: directory at 1 GiB, ESI: its first table.
build:
    call alloc_frame
    movl %eax, %ebp
    call alloc_frame
    movl %eax, %ebx
    leal PTE_P(%ebx), %eax
    movl %eax, (%ebp)
    movl $RWU, %edx
    xorl %ecx, %ecx
1:  call alloc_frame
    movl %eax, %esi
    orl $RWU, %eax
    movl %eax, (%ebx, %ecx, 8)
2:  movl %edx, (%esi)
    addl $4096, %edx
    addl $8, %esi
    testl $0xfff, %esi
    jnz 2b
    incl %ecx
    cmpl $4, %ecx
    jne 1b
    call alloc_frame
    movl %eax, %edi
    orl $PTE_P, %eax
    movl %eax, 8(%ebp)
    call alloc_frame
    movl %eax, %esi
    orl $RWU, %eax
    movl %eax, (%edi)
    ret

pae_on:
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl %ebp, %cr3
    movl %cr0, %eax
    orl $CR0_PG | CR0_WP, %eax
    movl %eax, %cr0
    jmp 1f
1:  ret

mapping:
    entry %esi, 0, $FRAME | RWU
    entry %esi, 8, $FRAME | RWU
    entry %esi, 16, $FRAME2 | RWU
    movl $0x11, WINDOW + 0x100
    movl $0x22, WINDOW + 0x2100
    movl $0x30cd, WINDOW                # INT 0x30, for fetches in ring 3
    movb $0xc3, WINDOW + 16             # RET, for fetches in ring 0
    shows "two pages of one frame", WINDOW + 0x1100, 0x11
    shows "... and one of another", WINDOW + 0x2100, 0x22
    marks "a write has set A and D", (%esi), AD
    marks "... a read A alone", 8(%esi), PTE_A
    movl (%edi), %eax
    andl $PTE_A, %eax
    check_eq "... and A is set in the directory", %eax, $PTE_A
    read_faults "an absent page", WINDOW + 0x3000, 0
    read_faults "an absent directory entry", WINDOW + 0x10000000, 0
    read_faults "an absent PDPTE", OTHER, 0
    write_faults "... a write", OTHER + 0x123, PF_W
    ret

rights:
    entry %esi, 0, $FRAME | PTE_P | PTE_U
    invlpg WINDOW
    write_faults "read-only: a write faults", WINDOW + 0x100, PF_P | PF_W
    run_ring3 3f
    expect_trap "... ring 3 reads", VEC_LEAVE
    entry %esi, 0, $FRAME | PTE_P | PTE_W
    invlpg WINDOW
    run_ring3 3f
    expect_trap "supervisor: ring 3 may not read", VEC_PF, PF_P | PF_U, 3f, WINDOW + 0x100
    entry %esi, 0, $FRAME | RWU
    andl $~PTE_W, (%edi)
    reload_cr3
    write_faults "a read-only directory entry: a write faults", WINDOW + 0x100, PF_P | PF_W
    orl $PTE_W, (%edi)
    invlpg WINDOW
    try 1f
    movl $0x11, WINDOW + 0x100
1:  expect_no_trap "... and no more"
    ret
3:  movl WINDOW + 0x100, %ebx
    int $VEC_LEAVE

large_pages:
    entry %edi, 8, $FRAME | RWU | PDE_PS
    shows "a 2 MiB page", LARGE + 0x100, 0x11
    shows "... its second frame", LARGE + 0x1100, 0x22
    marks "... a read sets A alone", 8(%edi), PTE_A
    movl $0x33, LARGE + 0x1ffffc
    marks "... a write elsewhere sets D", 8(%edi), AD
    entry %edi, 8, $FRAME | RWU | PDE_PS | 0x2000
    invlpg LARGE
    read_faults "bit 13 of a 2 MiB page is reserved", LARGE + 0x100, PF_R, NO_P
    # Split: a table with the same frames, then a change in it.
    call alloc_frame
    movl %eax, %edx
    movl $FRAME | RWU, %eax
    xorl %ecx, %ecx
1:  movl %eax, (%edx, %ecx, 8)
    addl $4096, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 1b
    leal RWU(%edx), %eax
    movl %eax, 8(%edi)
    reload_cr3
    movl $FRAME2 | RWU, (%edx)
    invlpg LARGE
    shows "split: one small page changed", LARGE + 0x100, 0x22
    shows "... the last one is there", LARGE + 0x1ffffc, 0x33
    entry %edi, 8, $FRAME | RWU | PDE_PS
    reload_cr3
    shows "joined", LARGE + 0x100, 0x11
    ret

halves:
    shows "an entry as it was", WINDOW + 0x100, 0x11
    movl $FRAME2 | RWU, (%esi)
    invlpg WINDOW
    shows "its low half written", WINDOW + 0x100, 0x22
    marks "... A is set anew", (%esi), PTE_A
    movl $0x40000000, 4(%esi)
    invlpg WINDOW
    read_faults "a reserved bit in its high half", WINDOW + 0x100, PF_R, NO_P
    write_faults "... a write", WINDOW + 0x104, PF_R | PF_W, NO_P
    movl $0, 4(%esi)
    invlpg WINDOW
    shows "... and away again", WINDOW + 0x100, 0x22
    movl (%esi), %eax
    movl 4(%esi), %edx
    movl $FRAME | RWU, %ebx
    xorl %ecx, %ecx
    lock
    cmpxchg8b (%esi)
    invlpg WINDOW
    shows "both halves by CMPXCHG8B", WINDOW + 0x100, 0x11
    movb $0x10, 1(%esi)                 # bits 8 to 15: FRAME2 for FRAME
    invlpg WINDOW
    shows "one byte written", WINDOW + 0x100, 0x22
    movw $0x0007, (%esi)
    invlpg WINDOW
    shows "... one word", WINDOW + 0x100, 0x11
    movl $0x40000000, 4(%edi)
    reload_cr3
    read_faults "a reserved bit in the directory", WINDOW + 0x100, PF_R, NO_P
    movl $0, 4(%edi)
    invlpg WINDOW
    shows "... and away again", WINDOW + 0x100, 0x11
    ret

no_execute:
    movl $0x80000000, 4(%esi)
    invlpg WINDOW
    read_faults "NXE=0: bit 63 is reserved", WINDOW + 0x100, PF_R, NO_P
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_NXE, %eax
    wrmsr
    reload_cr3
    shows "NXE=1: it is not", WINDOW + 0x100, 0x11
    try 1f
    movl $WINDOW + 16, %eax
    call *%eax
1:  expect_trap "... a fetch faults", VEC_PF, PF_P | PF_I, WINDOW + 16, WINDOW + 16
    movl $WINDOW, %eax
    call enter_ring3
    expect_trap "... in ring 3, too", VEC_PF, PF_P | PF_U | PF_I, WINDOW, WINDOW
    try 1f
    movl $WINDOW + 0x3000, %eax
    call *%eax
1:  expect_trap "... a fetch from an absent page", VEC_PF, PF_I, WINDOW + 0x3000, WINDOW + 0x3000
    movl $0, 4(%esi)
    invlpg WINDOW
    try 1f
    movl $WINDOW + 16, %eax
    call *%eax
1:  expect_no_trap "without NX: a fetch"
    movl $WINDOW, %eax
    call enter_ring3
    expect_trap "... in ring 3", VEC_LEAVE
    movl $0x80000000, 4(%edi)
    reload_cr3
    try 1f
    movl $WINDOW + 16, %eax
    call *%eax
1:  expect_trap "NX in the directory: a fetch faults", VEC_PF, PF_P | PF_I, WINDOW + 16, WINDOW + 16
    movl $0, 4(%edi)
    movl $0x80000000, 12(%edi)
    reload_cr3
    try 1f
    movl $LARGE + 16, %eax
    call *%eax
1:  expect_trap "NX in a 2 MiB page: a fetch faults", VEC_PF, PF_P | PF_I, LARGE + 16, LARGE + 16
    movl $0, 12(%edi)
    reload_cr3
    ret

pointers:
    leal PTE_P(%edi), %eax
    movl %eax, 16(%ebp)
    reload_cr3
    shows "a PDPTE for the same directory", OTHER + 0x100, 0x11
    movl $0, 16(%ebp)
    movl %cr4, %eax
    xorl $CR4_PGE, %eax
    movl %eax, %cr4                     # loads the PDPTEs, too
    read_faults "... is gone after a write of CR4", OTHER + 0x100, 0
    # A second PDPT in the same frame, with another directory for the window.
    call alloc_frame
    movl %eax, %edx
    orl $PTE_P, %eax
    movl %eax, 0x28(%ebp)
    movl $(FRAME + 0x200000) | RWU | PDE_PS, (%edx)
    movl (%ebp), %eax
    movl %eax, 0x20(%ebp)
    movl $0x44, LARGE + 0x100           # not in the other's 2 MiB
    leal 0x20(%ebp), %eax
    movl %eax, %cr3
    movl $0x55, WINDOW + 0x100
    movl %ebp, %cr3
    shows "a second PDPT in the frame: the first one's memory", WINDOW + 0x100, 0x44
    leal 0x20(%ebp), %eax
    movl %eax, %cr3
    shows "... the second one's", WINDOW + 0x100, 0x55
    read_faults "... which has no more", LARGE + 0x100, 0
    movl %ebp, %cr3
    movl $0x11, WINDOW + 0x100
    ret

self_map:
    leal PTE_P | PTE_W(%edi), %eax
    movl %eax, 511 * 8(%edi)
    shows "the directory maps itself", SELF + 0x1ff000 + 12, 0
    movl $FRAME2 | RWU, SELF + 8
    invlpg WINDOW + 0x1000
    shows "... a table changed through it", WINDOW + 0x1100, 0x22
    movl $0, SELF + 0x1ff000 + 8
    invlpg LARGE
    read_faults "... and the directory", LARGE + 0x100, 0
    ret

# 2-level paging with the same frames, and back.
off_and_on:
    call go_flat
    movl $RWU, %edx
    call paging_identity
    call paging_on
    movl $WINDOW, %eax
    movl $FRAME2 | RWU, %edx
    call map_page
    shows "2-level paging", WINDOW + 0x100, 0x22
    call go_flat
    call pae_on
    shows "and PAE again", WINDOW + 0x100, 0x11
    ret

go_flat:
    call paging_off
    movl %cr4, %eax
    andl $~CR4_PAE, %eax
    movl %eax, %cr4
    ret
