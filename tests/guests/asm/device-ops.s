# Instructions with operands in device memory, each done twice: on plain memory, and on the memory of QEMU's pc-testdev, which Gnomon
# has. Where there is no such device, plain memory takes its place. Memory, registers and defined flags must be the same.

.set TEST_DEVICE, 0xff000000            # keeps what is written
.set DEVICE_GVA, 0x60000000             # two pages of it, the second again
.set PLAIN_GVA, 0x60010000              # the same of plain memory
.set AREA, 4096 - 64                    # the operands: 128 bytes over the border of the pages
.set BYTES, 128
.set F_NONE, 0
.set F_CF, 0x001
.set F_ZF, 0x040
.set F_ALL, 0x8d5
.set F_NO_AF, F_ALL & ~0x010
.set F_RESULT, 0x0c5                    # of a shift by more than 1
.set F_WIDE, 0x801                      # of a multiplication
.set CR4_OSFXSR, 0x200

# EBX: the area, which has 00 01 02 ... 7f. ESI is EBX + 8, EDI EBX + 40, EBP EBX + 64, which is where the second page begins.
.macro once place:req, keep:req, instruction:req
    movl $\place, %ebx
    call begin
    stc
    \instruction
    pushfl
    popl \keep
    call keep_registers
    movl $\keep, %edi
    call keep_rest
.endm

# both "text", flags, instruction: one result.
.macro both text:req, mask:req, instruction:req
    once PLAIN_GVA + AREA, kept_plain, "\instruction"
    once DEVICE_GVA + AREA, kept_device, "\instruction"
    movl $\mask, %eax
    call differences
    check_eq "\text", %eax, $0
.endm

# on_stack "text", code: the same with the stack at EBP.
.macro on_stack text:req, code:req
    both "\text", F_NONE, "movl %esp, saved_esp; movl %ebp, %esp; \code; subl %ebx, %esp; movl %esp, new_esp; movl saved_esp, %esp"
.endm

guest_main:
    plan 97
    movl $PTE_W, %edx
    call paging_identity
    movl $PLAIN_GVA, %eax
    movl $plain_page, %edx
    call map_two
    movl $DEVICE_GVA, %eax
    movl $TEST_DEVICE, %edx
    call map_two
    call paging_on
    movl DEVICE_GVA, %eax
    notl %eax
    movl %eax, DEVICE_GVA
    cmpl DEVICE_GVA, %eax
    je 1f
    movl $DEVICE_GVA, %eax
    movl $other_page, %edx
    call map_two
1:  call moves
    call arithmetic
    call bits
    call strings
    call stacks
    call transfers
    call tables
    call vectors
    call media
    ret

# EAX: linear address, EDX: frame of two pages.
map_two:
    orl $PTE_P | PTE_W, %edx
    call map_page
    addl $4096, %eax
    addl $4096, %edx
    jmp map_page

begin:
    movl %ebx, %edi
    xorl %eax, %eax
1:  movb %al, (%edi)
    incl %edi
    incl %eax
    cmpl $BYTES, %eax
    jne 1b
    leal 8(%ebx), %esi
    leal 40(%ebx), %edi
    leal 64(%ebx), %ebp
    movl $0, new_esp
    movl $0x12345678, %eax
    movl $0x9abcdef0, %edx
    movl $5, %ecx
    cmpl $0x7f, %ecx
    ret

# What the instruction left in the registers, relative to EBX where they may be addresses.
keep_registers:
    movl %eax, kept_now
    movl %ecx, kept_now + 4
    movl %edx, kept_now + 8
    subl %ebx, %esi
    subl %ebx, %edi
    subl %ebx, %ebp
    movl %esi, kept_now + 12
    movl %edi, kept_now + 16
    movl %ebp, kept_now + 20
    movl new_esp, %eax
    movl %eax, kept_now + 24
    movl result, %eax
    movl %eax, kept_now + 28
    ret

# EDI: where flags, registers and memory are kept.
keep_rest:
    cld
    addl $4, %edi
    movl $kept_now, %esi
    movl $8, %ecx
    rep movsl
    movl $BYTES, %ecx
    movl %ebx, %esi
1:  movb (%esi), %al
    movb %al, (%edi)
    incl %esi
    incl %edi
    loop 1b
    ret

# EAX: the flags to compare. Gives in EAX the bits that differ anywhere.
differences:
    andl %eax, kept_plain
    andl %eax, kept_device
    xorl %eax, %eax
    movl $(36 + BYTES) / 4 - 1, %ecx
1:  movl kept_plain(, %ecx, 4), %edx
    xorl kept_device(, %ecx, 4), %edx
    orl %edx, %eax
    decl %ecx
    jns 1b
    ret

moves:
    both "MOV of a doubleword", F_ALL, "movl %eax, (%ebx); movl 4(%ebx), %edx"
    both "MOV of a word over the border", F_ALL, "movw %ax, -1(%ebp); movw -1(%ebp), %dx"
    both "MOV of a doubleword over the border", F_ALL, "movl %eax, -3(%ebp); movl -1(%ebp), %edx"
    both "MOV of bytes", F_ALL, "movb %ah, 3(%ebx); movb 5(%ebx), %dh"
    both "MOV of constants", F_ALL, "movb $0x55, (%ebx); movw $0x6677, 2(%ebx); movl $0x8899aabb, 4(%ebx)"
    both "MOV of a segment register", F_ALL, "movw %ds, (%ebx); movw %cs, 4(%ebx); movw %ss, 8(%ebx)"
    both "MOV to a segment register", F_ALL, "movw %ds, (%ebx); movw (%ebx), %es"
    both "MOVZX, MOVSX", F_ALL, "movzbl 3(%ebx), %eax; movb $0x80, (%ebx); movsbl (%ebx), %edx; movswl (%ebx), %ecx"
    both "XCHG", F_ALL, "xchgl %eax, (%ebx); xchgb %dl, 9(%ebx); xchgw %cx, 63(%ebx)"
    both "CMPXCHG that does", F_ALL, "movl (%ebx), %eax; lock cmpxchgl %edx, (%ebx)"
    both "CMPXCHG that does not", F_ALL, "lock cmpxchgl %edx, (%ebx)"
    both "CMPXCHG8B that does not", F_ZF, "lock cmpxchg8b 16(%ebx)"
    both "CMPXCHG8B that does", F_ZF, "movl 60(%ebx), %eax; movl 64(%ebx), %edx; xchgl %ebx, %esi; cmpxchg8b 52(%ebx); xchgl %ebx, %esi; movl $0, 60(%ebx)"
    both "MOVNTI", F_ALL, "movnti %eax, 8(%ebx)"
    both "XLAT", F_ALL, "movb $9, %al; xlatb"
    both "CMOV", F_ALL, "cmovcl 4(%ebx), %eax; cmovncl 8(%ebx), %edx"
    both "SETcc", F_ALL, "setc (%ebx); setnc 1(%ebx); setl 2(%ebx)"
    ret

arithmetic:
    both "ADD, ADC", F_ALL, "addl %eax, (%ebx); adcl $0x70000000, 4(%ebx)"
    both "SUB, SBB", F_ALL, "subl %eax, (%ebx); sbbb $1, 4(%ebx)"
    both "AND, OR, XOR", F_NO_AF, "andl %eax, 4(%ebx); orl $0x80000000, 8(%ebx); xorw %ax, 12(%ebx)"
    both "CMP, TEST", F_NO_AF, "cmpl %eax, 4(%ebx); setb result; testl $0x7000, 8(%ebx)"
    both "... the other way", F_ALL, "addl 4(%ebx), %eax; sbbl 8(%ebx), %edx; cmpb 1(%ebx), %cl"
    both "INC, DEC", F_ALL, "lock incl (%ebx); decb 8(%ebx)"
    both "NOT, NEG", F_ALL, "lock notl (%ebx); lock negw 4(%ebx)"
    both "LOCK ADD, OR", F_NO_AF, "lock addl %eax, (%ebx); lock orb $0x80, 4(%ebx)"
    both "XADD", F_ALL, "lock xaddl %eax, 4(%ebx); xaddb %dl, 63(%ebx)"
    both "MUL", F_WIDE, "mull 4(%ebx)"
    both "IMUL with one operand", F_WIDE, "imulw 4(%ebx)"
    both "IMUL with two", F_WIDE, "imull 4(%ebx), %eax"
    both "IMUL with three", F_WIDE, "imull $311, 4(%ebx), %ecx; imulw $-3, 8(%ebx), %dx"
    both "DIV, IDIV", F_NONE, "xorl %edx, %edx; divl 4(%ebx); movl $-77777, %eax; cltd; idivw 2(%ebx)"
    ret

bits:
    both "BT of a constant", F_CF, "btl $34, (%ebx)"
    both "BTS far ahead", F_CF, "movl $77, %eax; lock btsl %eax, (%ebx)"
    both "BTR behind", F_CF, "movl $-7, %eax; btrl %eax, 64(%ebx)"
    both "BTC of a word", F_CF, "movw $-9, %ax; btcw %ax, 64(%ebx)"
    both "BSF, BSR", F_ZF, "bsfl 4(%ebx), %eax; bsrw 6(%ebx), %dx"
    both "SHL, SHR, SAR", F_RESULT, "shll $3, 4(%ebx); shrb %cl, 9(%ebx); sarw $4, 12(%ebx)"
    both "ROL, ROR, RCL, RCR", F_CF, "roll $3, 4(%ebx); rorb %cl, 9(%ebx); rclw $4, 12(%ebx); rcrl $2, 16(%ebx)"
    both "SHLD, SHRD", F_RESULT, "shldl $3, %edx, 4(%ebx); shrdl %cl, %eax, 8(%ebx)"
    ret

strings:
    both "REP MOVSB", F_ALL, "movl $70, %ecx; movl %ebx, %esi; rep movsb"
    both "REP MOVSL backwards", F_ALL, "leal 24(%ebx), %esi; std; rep movsl; cld"
    both "REP STOSB over the border", F_ALL, "movl $60, %ecx; rep stosb"
    both "REP STOSW", F_ALL, "rep stosw"
    both "LODSB, LODSW, LODSL", F_ALL, "lodsb; movl %eax, %edx; lodsw; movw %ax, %cx; lodsl"
    both "REPE CMPSB, all equal", F_ALL, "movl %esi, %edi; movl $30, %ecx; repe cmpsb"
    both "REPE CMPSW", F_ALL, "movb $9, 41(%ebx); movb $8, 40(%ebx); repe cmpsw"
    both "REPNE CMPSL", F_ALL, "movl 16(%ebx), %eax; movl %eax, 48(%ebx); repne cmpsl"
    both "SCASB, SCASW, SCASL", F_ALL, "movb $40, %al; scasb; sete result; scasw; scasl"
    both "REPNE SCASB", F_ALL, "movb $90, %al; movl $100, %ecx; repne scasb"
    both "REPE SCASL", F_ALL, "movl (%edi), %eax; movl %eax, 4(%edi); repe scasl"
    both "MOVS with no count", F_ALL, "xorl %ecx, %ecx; rep movsb"
    both "OUTS", F_NONE, "movw $0x80, %dx; outsb; outsw; movl $40, %ecx; rep outsb"
    both "INS", F_NONE, "movb $0x0f, %al; outb %al, $0x70; movw $0x71, %dx; insb; movl $40, %ecx; rep insb"
    ret

stacks:
    # The CPU may leave the upper half of a segment register's slot as it was (SDM 2B, PUSH): QEMU clears it, Bochs does not.
    on_stack "PUSH", "pushl %eax; pushl $-7; pushl 4(%ebx); pushw %dx; pushl %ds; movw $0, 2(%esp); pushw $0x1234; pushl %esp; subl %ebx, (%esp)"
    on_stack "POP", "popl %eax; popw %dx; popl 4(%ebx); popw 8(%ebx)"
    on_stack "POP of a segment register", "movl $SEL_KDATA, (%esp); popl %es; pushl %es"
    on_stack "PUSHA, POPA", "pushal; popal; subl %ebx, -32(%esp); subl %ebx, -28(%esp); subl %ebx, -24(%esp); subl %ebx, -20(%esp); subl %ebx, -16(%esp)"
    on_stack "PUSHF, POPF", "pushfl; popl %eax; pushw $0; pushw $0x246; addl $2, %esp; pushl $0x46; popfl; pushfl; popl %edx"
    on_stack "CALL, RET", "call 91f; jmp 92f; 91: incl %eax; ret; 92: movl $0, -4(%esp)"
    on_stack "CALL, RET that drops", "pushl %eax; call 91f; jmp 92f; 91: incl %eax; ret $4; 92: movl $0, -8(%esp)"
    on_stack "ENTER, LEAVE", "enter $24, $0; movl %eax, -4(%ebp); subl %ebx, (%ebp); addl %ebx, (%ebp); leave; movl $0, -4(%esp)"
    on_stack "IRET", "pushfl; pushl %cs; movw $0, 2(%esp); pushl $91f; iretl; 91: movl $0, -12(%esp)"
    on_stack "INT", "call int_on_stack; xorl %eax, %eax"
    ret

int_on_stack:
    popl %eax
    hook 0x40, nothing
    int $0x40
    movl $16, %ecx                      # addresses in what was pushed
1:  movl $0, -68(%esp, %ecx, 4)
    loop 1b
    movl $5, %ecx
    jmp *%eax
nothing:
    ret

transfers:
    both "JMP", F_NONE, "movl $91f, 4(%ebx); jmp *4(%ebx); incl %eax; 91: movl $0, 4(%ebx)"
    both "CALL", F_NONE, "movl $91f, 4(%ebx); call *4(%ebx); jmp 92f; 91: incl %eax; ret; 92: movl $0, 4(%ebx)"
    both "far JMP", F_NONE, "movl $91f, 4(%ebx); movw %cs, 8(%ebx); ljmp *4(%ebx); incl %eax; 91: movl $0, 4(%ebx)"
    both "far CALL", F_NONE, "movl $91f, 4(%ebx); movw %cs, 8(%ebx); lcall *4(%ebx); jmp 92f; 91: incl %eax; lret; 92: movl $0, 4(%ebx)"
    both "LES", F_NONE, "movw %ds, 8(%ebx); lesl 4(%ebx), %eax"
    both "LDS", F_NONE, "movw %ds, 8(%ebx); ldsl 4(%ebx), %eax"
    both "LFS, LGS", F_NONE, "movw %ds, 8(%ebx); lfsl 4(%ebx), %eax; lgsw 6(%ebx), %dx"
    both "LSS", F_NONE, "movl %esp, 4(%ebx); movw %ss, 8(%ebx); lssl 4(%ebx), %esp; movl $0, 4(%ebx)"
    ret

tables:
    both "SGDT, SIDT", F_NONE, "sgdtl (%ebx); sidtl 60(%ebx)"
    both "LGDT, LIDT", F_NONE, "sgdtl (%ebx); lgdtl (%ebx); sidtl 60(%ebx); lidtl 60(%ebx)"
    both "SLDT, STR", F_NONE, "sldt (%ebx); str 4(%ebx)"
    both "LLDT", F_NONE, "movw $0, (%ebx); lldt (%ebx)"
    both "LTR", F_NONE, "andb $~2, gdt + SEL_TSS + 5; movw $SEL_TSS, (%ebx); ltr (%ebx); movb gdt + SEL_TSS + 5, %al"
    both "SMSW, LMSW", F_NONE, "smsw (%ebx); movw (%ebx), %ax; xorb $8, (%ebx); lmsw (%ebx); smsw 4(%ebx); movw %ax, 8(%ebx); lmsw 8(%ebx)"
    # LAR leaves bits 16 to 19 undefined.
    both "LAR, LSL, VERR, VERW", F_ZF, "movw %ds, (%ebx); lar (%ebx), %eax; andl $0xf0ff00, %eax; lsl (%ebx), %edx; verr (%ebx); setz result; verw (%ebx)"
    both "ARPL", F_ZF, "movw $3, %ax; arpl %ax, (%ebx)"
    ret

# A load, and a store to another place.
vectors:
    movl %cr4, %eax
    orl $CR4_OSFXSR, %eax
    movl %eax, %cr4
    both "MOVAPS", F_ALL, "movaps (%ebx), %xmm1; movaps %xmm1, 48(%ebx)"
    both "MOVAPD", F_ALL, "movapd 16(%ebx), %xmm7; movapd %xmm7, 64(%ebx)"
    both "MOVDQA", F_ALL, "movdqa (%ebx), %xmm0; movdqa %xmm0, 80(%ebx)"
    both "MOVUPS over the border", F_ALL, "movups 53(%ebx), %xmm2; movups %xmm2, 57(%ebx)"
    both "MOVUPD", F_ALL, "movupd 1(%ebx), %xmm3; movupd %xmm3, 99(%ebx)"
    both "MOVDQU", F_ALL, "movdqu 1(%ebx), %xmm4; movdqu %xmm4, 55(%ebx)"
    both "LDDQU, MOVNTDQ", F_ALL, "lddqu 3(%ebx), %xmm5; movntdq %xmm5, 64(%ebx)"
    both "MOVNTPS", F_ALL, "movups 3(%ebx), %xmm6; movntps %xmm6, 64(%ebx)"
    both "MOVQ", F_ALL, "movups (%ebx), %xmm1; movq 5(%ebx), %xmm1; movups %xmm1, 64(%ebx); movq %xmm1, 60(%ebx)"
    both "MOVD", F_ALL, "movups (%ebx), %xmm1; movd 5(%ebx), %xmm1; movups %xmm1, 64(%ebx); movd %xmm1, 62(%ebx)"
    both "MOVSS", F_ALL, "movups (%ebx), %xmm1; movss 5(%ebx), %xmm1; movups %xmm1, 64(%ebx); movss %xmm1, 2(%ebx)"
    both "MOVSD", F_ALL, "movups (%ebx), %xmm1; movsd 5(%ebx), %xmm1; movups %xmm1, 64(%ebx); movsd %xmm1, 2(%ebx)"
    both "MOVLPS, MOVHPS", F_ALL, "movups (%ebx), %xmm1; movlps 5(%ebx), %xmm1; movhps 40(%ebx), %xmm1; movups %xmm1, 64(%ebx); movlps %xmm1, 2(%ebx); movhps %xmm1, 22(%ebx)"
    both "MOVLPD, MOVHPD", F_ALL, "movups (%ebx), %xmm1; movhpd 5(%ebx), %xmm1; movlpd 40(%ebx), %xmm1; movups %xmm1, 64(%ebx); movhpd %xmm1, 2(%ebx)"
    ret

# MMX registers, with the x87 stack where it was and elsewhere.
media:
    fninit
    both "MOVQ of MMX", F_ALL, "movq (%ebx), %mm1; movq %mm1, 60(%ebx)"
    both "MOVD of MMX", F_ALL, "movq (%ebx), %mm3; movd 5(%ebx), %mm3; movq %mm3, 64(%ebx); movd %mm3, 80(%ebx)"
    both "MOVNTQ", F_ALL, "movq 8(%ebx), %mm7; movntq %mm7, 64(%ebx)"
    both "MMX behind the x87", F_NONE, "emms; fld1; fldz; movq 8(%ebx), %mm2; fnstsw %ax; movq %mm2, 64(%ebx); fnstenv environment; movzwl environment + 8, %edx; emms"
    ret

.bss
.balign 4096
plain_page: .space 8192
other_page: .space 8192
kept_plain: .space 36 + BYTES           # EFLAGS, EAX, ECX, EDX, ESI, EDI, EBP, ESP, result, the memory
kept_device: .space 36 + BYTES
kept_now: .space 32
new_esp: .space 4
saved_esp: .space 4
result: .space 4
environment: .space 28
