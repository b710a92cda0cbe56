# Page tables written through aliases, by many instructions, widths and alignments. After each write the window's
# translation is compared with the entry that must be there now.

.set WINDOW, 0x40000000                 # 16 pages, the first entries of their table
.set ALIAS, 0x50000000                  # the table and the page behind it, mapped elsewhere
.set USER_ALIAS, 0x50010000             # the same for ring 3
.set FRAMES, 0x01000000                 # frame n holds the number n
.set RWU, PTE_P | PTE_W | PTE_U

# frame n: the entry value for frame n
.macro define_frame n
    .set F\n, FRAMES + \n * 0x1000 + RWU
.endm
.irp n, 0, 1, 2, 3, 4, 5, 6, 7
    define_frame \n
.endr

# shows "text", page, frame: the window's page shows this frame (after INVLPG).
.macro shows text, page, frame
    invlpg WINDOW + \page * 0x1000
    movl WINDOW + \page * 0x1000, %eax
    check_eq "\text", %eax, $\frame
.endm

# gone "text", page: the window's page is absent.
.macro gone text, page
    invlpg WINDOW + \page * 0x1000
    try .Lafter_\@
.Lat_\@:
    movl WINDOW + \page * 0x1000, %eax
.Lafter_\@:
    expect_trap "\text", VEC_PF, 0, .Lat_\@, WINDOW + \page * 0x1000
.endm

guest_main:
    plan 60
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $WINDOW, %eax
    call pte_of
    movl %eax, table
    # The frames 0 to 7, each with its number.
    xorl %esi, %esi
1:  movl %esi, %edx
    shll $12, %edx
    addl $F0, %edx
    movl $WINDOW, %eax
    call map_page
    movl %esi, WINDOW
    incl %esi
    cmpl $8, %esi
    jne 1b
    # The aliases.
    movl table, %edx
    orl $PTE_P | PTE_W, %edx
    movl $ALIAS, %eax
    call map_page
    orl $PTE_U, %edx
    movl $USER_ALIAS, %eax
    call map_page
    movl $F7, %edx
    movl $ALIAS + 0x1000, %eax
    call map_page
    movl $ALIAS, %ebx

    call whole_words
    call read_modify_write
    call strings
    call partial
    call wide
    call stack_forms
    call crossing
    call other_ways
    ret

whole_words:
    movl $F1, (%ebx)
    shows "MOV", 0, 1
    movl $F2, %eax
    movl %eax, table_word
    movl table_word, %ecx
    movl %ecx, (%ebx)
    shows "MOV from a register", 0, 2
    movl $F3, %eax
    movl $ALIAS, %ecx
    movl %eax, %ds:(%ecx)
    shows "MOV with a segment prefix", 0, 3
    movl $F4, %eax
    movl %eax, ALIAS
    shows "MOV of EAX to an absolute address", 0, 4
    movl $F5, %eax
    movl $3, %ecx
    movl %eax, -12(%ebx, %ecx, 4)
    shows "MOV with base, index and displacement", 0, 5
    movl $F1, %eax
    xchgl %eax, (%ebx)
    andl $~0x60, %eax
    check_eq "XCHG returns the old entry", %eax, $F5
    shows "XCHG", 0, 1
    movl (%ebx), %eax
    movl $F2, %ecx
    lock
    cmpxchgl %ecx, (%ebx)
    sete %al
    movzbl %al, %eax
    check_eq "CMPXCHG that succeeds sets ZF", %eax, $1
    shows "... and writes", 0, 2
    movl $0x12345678, %eax
    movl $F3, %ecx
    lock
    cmpxchgl %ecx, (%ebx)
    setne %cl
    movzbl %cl, %ecx
    andl $~0x60, %eax
    check_eq "CMPXCHG that fails clears ZF", %ecx, $1
    check_eq "... returns the entry", %eax, $F2
    shows "... and does not write", 0, 2
    movl $0x1000, %eax
    lock
    xaddl %eax, (%ebx)
    shows "XADD", 0, 3
    ret

read_modify_write:
    movl $F2, (%ebx)
    addl $0x1000, (%ebx)
    shows "ADD", 0, 3
    subl $0x2000, (%ebx)
    shows "SUB", 0, 1
    movl $0x3000, %eax
    xorl %eax, (%ebx)
    shows "XOR", 0, 2
    orl $0x1000, (%ebx)
    shows "OR", 0, 3
    andl $~0x2000, (%ebx)
    shows "AND", 0, 1
    btrl $0, (%ebx)
    gone "BTR of the present bit", 0
    btsl $0, (%ebx)
    shows "BTS of the present bit", 0, 1
    btcl $12, (%ebx)
    shows "BTC", 0, 0
    movl $12 + 32, %eax                 # bit 12 of the next entry
    movl $F2, 4(%ebx)
    btsl %eax, (%ebx)
    shows "BTS with a bit number in a register, in the next entry", 1, 3
    lock
    btrl $0, 4(%ebx)
    gone "LOCK BTR", 1
    incl 4(%ebx)
    shows "INC", 1, 3
    decl 4(%ebx)
    gone "DEC", 1
    movl $~F4, 4(%ebx)
    notl 4(%ebx)
    shows "NOT", 1, 4
    movl $-F5, 4(%ebx)
    negl 4(%ebx)
    shows "NEG", 1, 5
    movl $(F3 >> 1) | 1 << 31, 4(%ebx)
    roll $1, 4(%ebx)
    shows "ROL", 1, 3
    movl $F4 & ~1, 4(%ebx)
    stc
    adcl $0, 4(%ebx)
    shows "ADC", 1, 4
    ret

strings:
    movl $F6, %eax
    movl %ebx, %edi
    movl $16, %ecx
    rep
    stosl
    shows "REP STOS, the first entry", 0, 6
    shows "REP STOS, the last entry", 15, 6
    movl $entries, %esi
    movl %ebx, %edi
    movl $8, %ecx
    rep
    movsl
    shows "REP MOVS, the first entry", 0, 7
    shows "REP MOVS, the last entry", 7, 0
    shows "REP MOVS, the one behind", 8, 6
    movl $entries_end - 4, %esi
    leal 28(%ebx), %edi
    movl $4, %ecx
    std
    rep
    movsl
    cld
    shows "REP MOVS downwards", 7, 0
    shows "... the next one", 4, 3
    movl $entries, %esi
    leal 32(%ebx), %edi
    movl $32, %ecx
    rep
    movsb
    shows "REP MOVSB", 8, 7
    shows "... the last entry", 15, 0
    movl %ebx, %esi                     # within the table
    leal 4(%ebx), %edi
    movsl
    shows "MOVS from entry to entry", 1, 7
    ret

partial:
    movl $F0, (%ebx)
    movb $0x50, 1(%ebx)
    shows "one byte: part of the frame number", 0, 5
    movb $0, (%ebx)
    gone "one byte: the flags", 0
    movb $RWU, (%ebx)
    shows "... put back", 0, 5
    movw $F3 & 0xffff, (%ebx)
    shows "two bytes", 0, 3
    movw $F0 >> 16, 2(%ebx)
    shows "two upper bytes", 0, 3
    movl $F1, (%ebx)
    movl $F2, 4(%ebx)
    # Bytes 2 and 3 of the first entry, bytes 0 and 1 of the second, at once.
    movl $(F4 & 0xffff) << 16 | FRAMES >> 16, 2(%ebx)
    shows "four bytes across two entries: the first keeps its frame", 0, 1
    shows "... the second has another", 1, 4
    orb $0x20, 5(%ebx)
    shows "OR of one byte", 1, 6
    ret

wide:
    movl $F1, (%ebx)
    movl $F2, 4(%ebx)
    movl (%ebx), %eax
    movl 4(%ebx), %edx
    pushl %ebx
    movl %ebx, %esi
    movl $F3, %ebx
    movl $F4, %ecx
    lock
    cmpxchg8b (%esi)
    sete %al
    popl %ebx
    movzbl %al, %eax
    check_eq "CMPXCHG8B sets ZF", %eax, $1
    shows "... and writes the first entry", 0, 3
    shows "... and the second", 1, 4
    ret

stack_forms:
    movl %esp, %esi
    leal 16(%ebx), %esp                 # the stack is in the page table, four entries deep
    pushl $F1
    pushl $F2
    movl $F3, %eax
    pushl %eax
    pushl word_4
    movl %esi, %esp
    shows "PUSH of a constant", 3, 1
    shows "PUSH of a register", 1, 3
    shows "PUSH of memory", 0, 4
    pushl $F5
    popl 4(%ebx)
    shows "POP", 1, 5
    ret

# A write across the end of the table's page, into the page behind it (frame 7, plain memory).
crossing:
    movl $F2, 0xffc(%ebx)
    movl $0, 0x1000(%ebx)
    movl $(F6 & 0xffff) << 16 | FRAMES >> 16, 0xffe(%ebx)
    movl WINDOW + 0x3ff000, %eax
    check_eq "four bytes across the table's end: the entry", %eax, $2
    movl 0x1000(%ebx), %eax
    check_eq "... and the page behind it", %eax, $F6 & 0xffff
    movl $7, 0x1000(%ebx)
    ret

other_ways:
    # Through two aliases in turn.
    movl table, %esi
    movl $F1, (%esi)
    movl $F2, (%ebx)
    shows "the alias after the identity map", 0, 2
    movl $F3, (%esi)
    shows "the identity map after the alias", 0, 3
    # From ring 3, which was given the table.
    run_ring3 1f
    shows "ring 3 writes to a table it was given", 0, 4
    # An alias that appears, writes, and disappears.
    movl $F5, (%ebx)
    movl $0x50020000, %eax
    movl table, %edx
    orl $PTE_P | PTE_W, %edx
    call map_page
    movl $F6, 0x50020000
    xorl %edx, %edx
    call map_page
    shows "an alias that comes and goes", 0, 6
    # An alias through a large page is in the guest `pse`.
    ret
1:  movl $F4, USER_ALIAS
    int $VEC_LEAVE

.section .rodata
.balign 4
entries: .long F7, F6, F5, F4, F3, F2, F1, F0
entries_end:
word_4: .long F4
.bss
.balign 4
table: .space 4
table_word: .space 4
