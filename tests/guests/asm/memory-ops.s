# Integer instructions with a memory operand, each done twice: on plain memory, and on memory where Gnomon emulates it. Value,
# registers and defined flags must be the same. The second memory is a page table (its words are followed) or a place without
# memory (only read: what a MOV reads there goes to the plain word first).

.set TABLE_GVA, 0x40000000              # nothing uses the addresses of this page table
.set NOWHERE, 0xd0000000                # no memory and no device
.set F_CF, 0x001
.set F_PF, 0x004
.set F_AF, 0x010
.set F_ZF, 0x040
.set F_SF, 0x080
.set F_OF, 0x800
.set F_ALL, F_CF | F_PF | F_AF | F_ZF | F_SF | F_OF
.set F_RESULT, F_CF | F_PF | F_ZF | F_SF        # of a shift by more than 1
.set F_SHIFT, F_RESULT | F_OF                   # of a shift by 1
.set F_ROTATE, F_ALL & ~F_OF                    # of a rotate by more than 1
.set F_WIDE, F_CF | F_OF                        # of a multiplication

# The state before: EAX, EDX, ECX = 5, the word, ESI: the plain word, CF = 1; the instruction names the word by EBX or EDI.
.macro once where, keep, eax, edx, word, instruction:vararg
    movl $\where, %ebx
    .ifnc \word,none
    movl $\word, (%ebx)
    .endif
    movl $\eax, %eax
    movl $\edx, %edx
    movl $5, %ecx
    movl $plain_word, %esi
    movl %ebx, %edi
    cmpl $0x7f, %ecx                    # SF, AF
    stc
    \instruction
    pushfl
    popl \keep + 12
    movl %eax, \keep
    movl %edx, \keep + 4
    movl %ecx, \keep + 8
    subl %ebx, %edi
    movl %edi, \keep + 16
    movl %esi, \keep + 20
    movl (%ebx), %eax
    movl %eax, \keep + 24
.endm

# same "text", flags, eax, edx, word, instruction: one result.
.macro same text:req, mask:req, eax:req, edx:req, word:req, instruction:vararg
    once plain_word, kept_plain, \eax, \edx, \word, \instruction
    invlpg TABLE_GVA                    # writes of parts of an entry may end the shadow; this begins it again
    movl TABLE_GVA, %eax
    once table_alias, kept_other, \eax, \edx, \word, \instruction
    movl $\mask, %eax
    call differences
    check_eq "\text", %eax, $0
.endm

# reads "text", flags, eax, edx, instruction: the same with a word that is only read, from nowhere.
.macro reads text:req, mask:req, eax:req, edx:req, instruction:vararg
    movl NOWHERE, %eax
    movl %eax, plain_word
    movl NOWHERE + 4, %eax
    movl %eax, plain_word + 4
    once plain_word, kept_plain, \eax, \edx, none, \instruction
    once NOWHERE, kept_other, \eax, \edx, none, \instruction
    movl $\mask, %eax
    call differences
    check_eq "nowhere: \text", %eax, $0
.endm

.set table_alias, 0x50000400            # words of the page table

guest_main:
    plan 71
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl $NOWHERE, %eax
    movl $NOWHERE | PTE_P | PTE_W, %edx
    call map_page
    call paging_on
    # The page table of TABLE_GVA, used once, so that it is shadowed.
    movl $TABLE_GVA, %eax
    movl $0x01000000 | PTE_P | PTE_W, %edx
    call map_page
    movl $1, TABLE_GVA
    movl $TABLE_GVA, %eax
    call pte_of
    andl $~0xfff, %eax
    movl %eax, %edx
    orl $PTE_P | PTE_W, %edx
    movl $table_alias & ~0xfff, %eax
    call map_page

    call shifts
    call multiplications
    call others
    call strings
    call read_only
    call errors
    ret

shifts:
    same "ROL by 1", F_ALL, 0, 0, 0x80000001, roll $1, (%ebx)
    same "ROR by 1", F_ALL, 0, 0, 0x80000001, rorl $1, (%ebx)
    # RCL and RCR: words that shift a 1 out. When their write faults, QEMU's CPU has changed CF already.
    same "RCL by 1", F_ALL, 0, 0, 0xc0000000, rcll $1, (%ebx)
    same "RCR by 1", F_ALL, 0, 0, 0x00000003, rcrl $1, (%ebx)
    same "SHL by 1", F_SHIFT, 0, 0, 0xc0000001, shll $1, (%ebx)
    same "SHR by 1", F_SHIFT, 0, 0, 0x80000001, shrl $1, (%ebx)
    same "SAR by 1", F_SHIFT, 0, 0, 0x80000001, sarl $1, (%ebx)
    same "ROL by CL", F_ROTATE, 0, 0, 0x12345678, roll %cl, (%ebx)
    same "ROR by CL", F_ROTATE, 0, 0, 0x12345678, rorl %cl, (%ebx)
    same "RCL by CL", F_ROTATE, 0, 0, 0x1a345678, rcll %cl, (%ebx)
    same "RCR by CL", F_ROTATE, 0, 0, 0x12345678, rcrl %cl, (%ebx)
    same "SHL by CL", F_RESULT, 0, 0, 0x12345678, shll %cl, (%ebx)
    same "SHR by CL", F_RESULT, 0, 0, 0xf2345678, shrl %cl, (%ebx)
    same "SAR by CL", F_RESULT, 0, 0, 0xf2345678, sarl %cl, (%ebx)
    same "ROL of a byte", F_ROTATE, 0, 0, 0x12345678, rolb $3, 1(%ebx)
    same "RCL of a byte by 9", F_ROTATE, 0, 0, 0x123456f0, rclb $9, (%ebx)
    same "RCR of a word by 18", F_ROTATE, 0, 0, 0x123456f1, rcrw $18, (%ebx)
    same "SHR of a word", F_RESULT, 0, 0, 0x123496f0, shrw $4, (%ebx)
    same "SAR of a byte by 31", F_PF | F_ZF | F_SF, 0, 0, 0x123496f0, sarb $31, (%ebx)
    same "SHL by 32: no flag changes", F_ALL, 0, 0, 0x12345678, shll $32, (%ebx)
    same "SHLD", F_RESULT, 0x9abcdef0, 0, 0x12345678, shldl $12, %eax, (%ebx)
    same "SHRD", F_RESULT, 0x9abcdef0, 0, 0x12345678, shrdl %cl, %eax, (%ebx)
    same "SHLD of a word", F_RESULT, 0x9abcdef0, 0, 0x12345678, shldw $7, %ax, (%ebx)
    same "SHRD by 1", F_SHIFT, 0x9abcdef1, 0, 0x12345678, shrdl $1, %eax, (%ebx)
    ret

multiplications:
    same "MUL", F_WIDE, 0x12345678, 0, 0x00100002, mull (%ebx)
    same "MUL that fits", F_WIDE, 0x100, 7, 0x20, mull (%ebx)
    same "MUL of a byte", F_WIDE, 0x123456fe, 7, 0x20, mulb (%ebx)
    same "MUL of a word", F_WIDE, 0x123456fe, 7, 0xf020, mulw (%ebx)
    same "IMUL", F_WIDE, -3, 0, 0x00100002, imull (%ebx)
    same "IMUL of a byte", F_WIDE, 0x80, 0, 0x7f, imulb (%ebx)
    same "IMUL into a register", F_WIDE, 0x7fffffff, 0, 0x00000002, imull (%ebx), %eax
    same "IMUL by a constant", F_WIDE, 0, 0, 0xfffffffe, imull $-3, (%ebx), %edx
    same "IMUL of words by a constant", F_WIDE, 0, 0xffff0000, 0x4000, imulw $4, (%ebx), %dx
    same "DIV", 0, 0x3456789a, 0x12, 0x00c0ffee, divl (%ebx)
    same "DIV of a byte", 0, 0x789a, 0, 0xee, divb (%ebx)
    same "DIV of a word", 0, 0x789a, 0x12, 0xffee, divw (%ebx)
    same "IDIV", 0, 0x3456789a, -2, 0x00c0ffee, idivl (%ebx)
    same "IDIV of a byte", 0, 0xfff9, 0, 2, idivb (%ebx)
    same "IDIV of a word", 0, 0xfff9, 0xffff, 0xfffe, idivw (%ebx)
    ret

others:
    same "SETC", F_ALL, 0, 0, 0x12345678, setc (%ebx)
    same "SETG", F_ALL, 0, 0, 0x12345678, setg 1(%ebx)
    same "SETNP", F_ALL, 0, 0, 0x12345678, setnp (%ebx)
    same "CMOVC", F_ALL, 1, 0, 0x12345678, cmovcl (%ebx), %eax
    same "CMOVE that does not move", F_ALL, 1, 0, 0x12345678, cmovel (%ebx), %eax
    same "BSF", F_ZF, 1, 0, 0x12345600, bsfl (%ebx), %eax
    same "BSR", F_ZF, 1, 0, 0x02345600, bsrl (%ebx), %eax
    same "BSF of nothing", F_ZF, 1, 0, 0, bsfl (%ebx), %eax
    same "BSR of a word", F_ZF, 0x11111, 0, 0x02340600, bsrw (%ebx), %ax
    same "XLAT", F_ALL, 2, 0, 0x12345678, xlatb
    same "CMPXCHG of a byte", F_ALL, 0x78, 0xaa, 0x12345678, cmpxchgb %dl, (%ebx)
    same "XADD of a word", F_ALL, 0x1234ffff, 0, 0x12345678, xaddw %ax, (%ebx)
    same "SBB of a constant", F_ALL, 0, 0, 0x12345678, sbbl $-1, (%ebx)
    ret

strings:
    same "CMPSB", F_ALL, 0, 0, 0x12345678, cmpsb
    same "REPE CMPSL", F_ALL, 0, 0, 0x12345678, repe cmpsl
    same "SCASB that finds", F_ALL, 0x78, 0, 0x12345678, scasb
    same "REPNE SCASB", F_ALL, 0x34, 0, 0x12345678, repne scasb
    same "REPE SCASB", F_ALL, 0x78, 0, 0x12345678, repe scasb
    same "REPNE SCASL that finds nothing", F_ALL, 1, 0, 0x12345678, repne scasl
    ret

read_only:
    reads "MOVZX", F_ALL, 0, 0, movzbl (%ebx), %eax
    reads "MOVSX of a word", F_ALL, 0, 0, movswl 2(%ebx), %eax
    reads "TEST", F_ALL, 0, 0, testl $0x1000, (%ebx)
    reads "CMP", F_ALL, 7, 0, cmpl %eax, (%ebx)
    reads "IMUL", F_WIDE, 3, 0, imull (%ebx), %eax
    reads "BSF", F_ZF, 3, 0, bsfl (%ebx), %eax
    reads "CMOVC", F_ALL, 3, 0, cmovcl (%ebx), %eax
    reads "BT", F_CF, 3, 0, btl %eax, (%ebx)
    reads "SCASL", F_ALL, 3, 0, scasl
    reads "REPE CMPSB", F_ALL, 3, 0, repe cmpsb
    ret

errors:
    movl $table_alias, %ebx
    movl $0, (%ebx)
    fault "DIV by 0", 0, ANY, divl (%ebx)
    movl $1, (%ebx)
    movl $1, %edx
    fault "DIV whose quotient does not fit", 0, ANY, divl (%ebx)
    movb $0xff, (%ebx)
    movl $0xff80, %eax
    fault "IDIV whose quotient does not fit", 0, ANY, idivb (%ebx)
    ret

# EAX: the flags to compare. Gives in EAX the bits that differ anywhere.
differences:
    andl %eax, kept_plain + 12
    andl %eax, kept_other + 12
    xorl %eax, %eax
    movl $6, %ecx
1:  movl kept_plain(, %ecx, 4), %edx
    xorl kept_other(, %ecx, 4), %edx
    orl %edx, %eax
    decl %ecx
    jns 1b
    ret

.bss
.balign 64
plain_word: .space 64
kept_plain: .space 28               # EAX, EDX, ECX, EFLAGS, how far EDI went, ESI, the word
kept_other: .space 28
