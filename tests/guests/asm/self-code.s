# A kernel that reads, writes and jumps into its own code, in every nasty way.

.set FLAGS, 0x202                       # EFLAGS after STI and XOR of what is not zero: see `plain_flags`
.set VIRTUAL, 0x00c00000                # pages mapped by the tests
.set RET, 0xc3

# Calls the code at a label and compares EBX.
.macro expect text:req, target:req, want:req
    movl $0, %ebx
    call \target
    check_eq "\text", %ebx, \want
.endm

guest_main:
    plan 50
    call checksum
    movl %eax, first_sum
    call pic_init
    call patches
    call overlaps
    call stream
    call beside_data
    call many_copies
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    call aliases
    call page_borders
    call remapping
    call user_pages
    call absent_page
    call read_only
    call checksum
    check_eq "the kernel's own checksum of its text", %eax, first_sum
    ret

# EAX: a sum of the text of this guest that nothing here writes.
checksum:
    movl $guest_main, %esi
    movl $text_end, %ecx
    subl %esi, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
1:  roll $5, %eax
    movb (%esi), %dl
    addl %edx, %eax
    incl %esi
    loop 1b
    ret

patches:
    expect "code as it was", patched, $1
    movl $2, patched + 1
    expect "an immediate that was written", patched, $2
    movb $3, patched + 1
    expect "... by a byte", patched, $3
    movb $0xb9, patched                 # mov $3, %ecx
    movl $7, %ecx
    expect "an opcode that was written", patched, $0
    movb $0xbb, patched
    movl $patched, %edi
    movl $other, %esi
    movl $6, %ecx
    rep
    movsb
    expect "code that was copied over code", patched, $0x0bad
    movl $0x58, %eax
    movb $0x9c, turns                   # nop -> pushf; pop %ebx behind it was a nop, too
    movb $0x5b, turns + 1
    sti
    call turns
    cli
    andl $EFLAGS_IF, %ebx
    check_eq "code that became sensitive", %ebx, $EFLAGS_IF
    movw $0x9090, turns
    expect "... and is not any more", turns, $0
    movb $0xcc, turns                   # a breakpoint, as debuggers set it
    try 1f
    call turns
1:  expect_trap "a breakpoint in code that ran", VEC_BP, ANY, turns + 1
    movb $0x90, turns
    expect "... and is not any more", turns, $0
    lock
    xorb $0x93, turns + 1               # 0x90 -> 0x03: add %ebx, %eax... never executed
    lock
    xorb $0x93, turns + 1
    expect "a write that changes nothing in the end", turns, $0
    ret

# Instructions inside instructions.
overlaps:
    sti
    expect "an instruction", overlap, $0
    check_eq "... its immediate", %eax, $0xc3905b9c
    movl $0, %ebx
    call overlap + 1
    andl $EFLAGS_IF, %ebx
    check_eq "PUSHF and POP inside of it", %ebx, $EFLAGS_IF
    expect "... and it is still itself", overlap, $0
    check_eq "... its immediate", %eax, $0xc3905b9c
    cli
    call overlap + 1
    andl $EFLAGS_IF, %ebx
    check_eq "... and again, IF clear", %ebx, $0
    sti
    movl $0, %ebx
    call overlap2                       # this one is reached by an indirect call only
    movl $overlap2 + 1, %ecx
    cli
    call *%ecx
    andl $EFLAGS_IF, %ebx
    check_eq "an indirect call into an instruction", %ebx, $0
    movl $0, %ebx
    call overlap3
    check_eq "a jump over a byte that hides a call", %ebx, $0x11
    movb $0x5a, overlap + 2             # pop %edx
    movl $0, %ebx
    call overlap + 1
    check_eq "patched inside", %ebx, $0
    movb $0x5b, overlap + 2
    ret

# Writes the instructions right ahead of itself.
stream:
    movl $0, %ebx
    movl $16, %ecx
1:  movb $0x43, ahead                   # inc %ebx
    jmp 2f
2:
ahead:
    nop
    movb $0x90, ahead
    loop 1b
    check_eq "code written right ahead", %ebx, $16
    ret

# Data that is written all the time, in the page of the loop that writes it.
beside_data:
    movl $0, near
    movl $10000, %ecx
1:  incl near
    pushfl
    popl %eax
    loop 1b
    check_eq "10000 writes beside the code that makes them", near, $10000
    movl $near, %edi
    movl $0x5a5a5a5a, %eax
    movl $64, %ecx
    rep
    stosl
    check_eq "a block of writes", near + 252, $0x5a5a5a5a
    expect "code in that page", near_code, $9
    movl $10, near_code + 1
    expect "... written after all that", near_code, $10
    movl $9, near_code + 1
    ret

# The same page, filled with code again and again; and many pages of code.
many_copies:
    movl $0, %ebp
    movl $200, %ecx
1:  movl %ecx, %eax
    movl $scratch, %edi
    call write_code
    pushl %ecx
    call scratch
    popl %ecx
    addl %ebx, %ebp
    loop 1b
    check_eq "200 times other code in a page", %ebp, $200 * 201 / 2
    movl $0, %ebp
    movl $1500, %ecx
    movl $0x00800000, %edi
2:  movl %ecx, %eax
    call write_code
    pushl %ecx
    call *%edi
    popl %ecx
    addl %ebx, %ebp
    addl $4096, %edi
    loop 2b
    check_eq "1500 pages of code", %ebp, $1500 * 1501 / 2
    movl $0, %ebp
    movl $1500, %ecx
    movl $0x00800000, %edi
3:  pushl %ecx
    call *%edi
    popl %ecx
    addl %ebx, %ebp
    addl $4096, %edi
    loop 3b
    check_eq "... and once more", %ebp, $1500 * 1501 / 2
    ret

# EDI: where; EAX: the value it returns in EBX.
write_code:
    movb $0xbb, (%edi)
    movl %eax, 1(%edi)
    movb $RET, 5(%edi)
    ret

# Code written through another address of its frame.
aliases:
    movl $VIRTUAL, %eax
    movl $scratch, %edx
    orl $PTE_P | PTE_W, %edx
    call map_page
    movl $scratch, %edi
    movl $0x111, %eax
    call write_code
    expect "code at one address", scratch, $0x111
    expect "... at the other", VIRTUAL, $0x111
    movl $0x222, VIRTUAL + 1
    expect "written through the alias", scratch, $0x222
    movl $0x333, scratch + 1
    expect "... and the other way round", VIRTUAL, $0x333
    ret

# Instructions across a page border.
page_borders:
    movl $scratch, %edx
    orl $PTE_P | PTE_W, %edx
    movl $VIRTUAL + 0x1000, %eax
    call map_page
    movl $scratch2, %edx
    orl $PTE_P | PTE_W, %edx
    movl $VIRTUAL + 0x2000, %eax
    call map_page
    movl $scratch + 0xffe, %edi         # two bytes there, three and RET in the next
    movl $scratch2, %esi
    movw $0x44bb, (%edi)
    movl $0xc3112233, (%esi)
    expect "an instruction across a border", VIRTUAL + 0x1ffe, $0x11223344
    movb $0x99, (%esi)
    expect "... its second part written", VIRTUAL + 0x1ffe, $0x11229944
    movb $0x88, 1(%edi)
    expect "... its first part written", VIRTUAL + 0x1ffe, $0x11229988
    movl $scratch3, %edi
    movl $0xc3aabbcc, (%edi)
    movl %edi, %edx
    orl $PTE_P | PTE_W, %edx
    movl $VIRTUAL + 0x3000, %eax
    call map_page
    movl $scratch, %edx
    orl $PTE_P | PTE_W, %edx
    movl $VIRTUAL + 0x2000, %eax        # now the page that was before comes behind: a second view of it
    call map_page
    movl $scratch + 0xffe, %edi
    movl $0xc3000000, scratch
    movb $0x88, 1(%edi)                 # Bochs 2.7 keeps the whole old instruction, bare too, unless this part is written
    expect "the same part, with another behind it", VIRTUAL + 0x2ffe, $0xaabbcc88
    movw $0xa20f, scratch3 + 0x100
    movb $0x0f, scratch + 0xfff         # CPUID, split
    movw $0xc3a2, scratch3
    movl $0, %eax
    call VIRTUAL + 0x2fff
    movl $0, %ebx
    adcl $0, %ebx
    check_eq "a sensitive one across a border", %ebx, $0
    movw $0x9c90, scratch + 0xffe       # nop, PUSHF as the last byte
    movw $0xc35b, scratch3              # pop %ebx, ret
    sti
    call VIRTUAL + 0x2ffe
    cli
    andl $EFLAGS_IF, %ebx
    check_eq "a sensitive one as the last byte", %ebx, $EFLAGS_IF
    ret

# Another frame behind the same address.
remapping:
    movl $scratch, %edi
    movl $0x10, %eax
    call write_code
    movl $scratch2, %edi
    movl $0x20, %eax
    call write_code
    movl $0, %ebp
    movl $20, %ecx
1:  movl $scratch, %edx
    testl $1, %ecx
    jz 2f
    movl $scratch2, %edx
2:  orl $PTE_P | PTE_W, %edx
    movl $VIRTUAL, %eax
    call map_page
    pushl %ecx
    call VIRTUAL
    popl %ecx
    addl %ebx, %ebp
    loop 1b
    check_eq "an address with two frames in turn", %ebp, $10 * 0x30
    ret

# Code in pages that user code may use, called by the kernel.
user_pages:
    movl $VIRTUAL, %eax
    movl $scratch, %edx
    orl $PTE_P | PTE_W | PTE_U, %edx
    call map_page
    movl $scratch, %edi
    movw $0x5b9c, (%edi)                # pushf; pop %ebx; ret
    movb $RET, 2(%edi)
    sti
    call VIRTUAL
    cli
    andl $EFLAGS_IF, %ebx
    check_eq "the kernel calls code in a user page", %ebx, $EFLAGS_IF
    movl $0xb9, scratch                 # mov $0, %ecx ... then int
    movb $0, scratch + 4
    movl $0x000030cd, scratch + 5       # int $VEC_LEAVE
    run_ring3 VIRTUAL
    expect_trap "... that user code runs, too", 0x30
    movl $0xc35b9c, scratch
    sti
    call VIRTUAL
    cli
    andl $EFLAGS_IF, %ebx
    check_eq "... and the kernel again", %ebx, $EFLAGS_IF
    ret

# The page behind the last instruction is absent.
absent_page:
    movl $VIRTUAL + 0x2000, %eax
    xorl %edx, %edx
    call map_page
    movl $VIRTUAL + 0x1000, %eax
    movl $scratch, %edx
    orl $PTE_P | PTE_W, %edx
    call map_page
    movb $RET, scratch + 0xfff
    expect "the last byte of a page", VIRTUAL + 0x1fff, $0
    movb $0x90, scratch + 0xfff
    try 1f
    call VIRTUAL + 0x1fff
1:  expect_trap "running into an absent page", VEC_PF, 0, VIRTUAL + 0x2000, VIRTUAL + 0x2000
    movw $0x44bb, scratch + 0xffe
    try 1f
    call VIRTUAL + 0x1ffe
1:  expect_trap "an instruction that ends in an absent page", VEC_PF, 0, VIRTUAL + 0x1ffe, VIRTUAL + 0x2000
    movl $VIRTUAL + 0x2000, %eax
    movl $scratch2, %edx
    orl $PTE_P | PTE_W, %edx
    call map_page
    movl $0xc3112233, scratch2
    expect "... which is there now", VIRTUAL + 0x1ffe, $0x11223344
    movl $VIRTUAL + 0x2000, %eax
    call pte_of
    movl (%eax), %ebx
    andl $PTE_A, %ebx
    check_eq "... and its accessed bit is set", %ebx, $PTE_A
    ret

# Code whose page is written by a faulting kernel, and a wild jump.
read_only:
    movl $VIRTUAL, %eax
    movl $scratch, %edx
    orl $PTE_P, %edx
    call map_page
    movl $scratch, %edi
    movl $0x77, %eax
    call write_code
    expect "code in a page that cannot be written", VIRTUAL, $0x77
    fault "... nor is it", VEC_PF, PF_P | PF_W, incb VIRTUAL + 1
    try 1f
    movl $0x01000000, %eax
    jmp *%eax
1:  expect_trap "a jump to where nothing is mapped", VEC_PF, 0, 0x01000000, 0x01000000
    ret
text_end:

# Code that is written.
.balign 64
patched:
    movl $1, %ebx
    ret
other:
    .byte 0xbb
    .long 0x0bad
    ret
turns:
    nop
    nop
    ret
overlap:
    .byte 0xb8, 0x9c, 0x5b, 0x90, 0xc3  # mov $0xc3905b9c, %eax: PUSHF, POP %ebx, NOP, RET inside
    ret
overlap2:
    .byte 0xb8, 0x9c, 0x5b, 0x90, 0xc3
    ret
overlap3:
    jmp 1f
    .byte 0xe8                          # a call, to whoever decodes straight on
1:  addl $0x11, %ebx
    ret

.balign 4096
near:
    .space 256
near_code:
    movl $9, %ebx
    ret

.data
.balign 4
first_sum: .long 0

.bss
.balign 4096
scratch: .space 4096
scratch2: .space 4096
scratch3: .space 4096
