# What keeps a kernel from its user's pages and the user from the kernel's registers: SMEP, SMAP, UMIP, each as CPUID has it.

.set CR4_UMIP, 0x00000800
.set CR4_SMEP, 0x00100000
.set CR4_SMAP, 0x00200000
.set HAS_UMIP, 1 << 2                   # CPUID, leaf 7: ECX
.set HAS_SMEP, 1 << 7                   # ... EBX
.set HAS_SMAP, 1 << 20
.set EFLAGS_AC, 0x40000
.set USER_GVA, 0x40000000               # a page of the user's, to read and write
.set FIXED_GVA, 0x40001000              # the same page, read-only
.set CODE_GVA, 0x40002000               # code of the user's
.set KERNEL_GVA, 0x40003000             # the first page, but the kernel's

# What happened since `try`: error code and vector, or NONE.
.macro outcome
    movl trap_error, %eax
    shll $8, %eax
    orl trap_vector, %eax
.endm

# judge "text", feature, with, without: the outcome is as it should be.
.macro judge text:req, feature:req, with:req, without:req
    outcome
    movl $\without, %edx
    testl $\feature, features
    jz .Lless_\@
    movl $\with, %edx
.Lless_\@:
    check_eq "\text", %eax, %edx
.endm

# smap "text", flags, outcome, code: in ring 0 with these flags. Without SMAP nothing happens.
.macro smap text:req, flags:req, wanted:req, code:req
    movl $USER_GVA, %ebx
    pushl $\flags | 2
    popfl
    try .Lafter_\@
    \code
.Lafter_\@:
    pushl $2
    popfl
    judge "\text", HAS_SMAP, \wanted, NONE
.endm

# smep "text", outcome: calls the user's code in ring 0.
.macro smep text:req, wanted:req
    movl $CODE_GVA, %ebx
    try .Lafter_\@
    call *%ebx
.Lafter_\@:
    judge "\text", HAS_SMEP, \wanted, NONE
.endm

# umip "text", code: in ring 3.
.macro umip text:req, code:req
    .pushsection .data.user
.Luser_\@:
    movl $USER_GVA, %ebx
    \code
    int $VEC_LEAVE
    .popsection
    movl $.Luser_\@ - user_code + CODE_GVA, %eax
    call enter_ring3
    testl $CR4_UMIP, in_cr4
    jnz .Lon_\@
    judge "\text", 0, NONE, VEC_LEAVE
    jmp .Ldone_\@
.Lon_\@:
    judge "... \text with UMIP", HAS_UMIP, VEC_GP, VEC_LEAVE
.Ldone_\@:
.endm

.set PF_READ, (PF_P << 8) | VEC_PF
.set PF_WRITE, ((PF_P | PF_W) << 8) | VEC_PF
.set PF_FETCH, (0x11 << 8) | VEC_PF

# The user's code begins with a RET, for calls of the kernel's.
.section .data.user, "aw"
.balign 4096
user_code:
    ret
.text

guest_main:
    plan 45
    call find_features
    movl $PTE_W, %edx
    call paging_identity
    movl $USER_GVA, %eax
    movl $user_page, %edx
    orl $PTE_P | PTE_W | PTE_U, %edx
    call map_page
    movl $FIXED_GVA, %eax
    movl $user_page, %edx
    orl $PTE_P | PTE_U, %edx
    call map_page
    movl $CODE_GVA, %eax
    movl $user_code, %edx
    orl $PTE_P | PTE_U, %edx
    call map_page
    movl $KERNEL_GVA, %eax
    movl $user_page, %edx
    orl $PTE_P | PTE_W, %edx
    call map_page
    call paging_on
    call umip_tests
    call smep_tests
    call smap_tests
    ret

find_features:
    pushl %ebx
    movl $0, features
    xorl %eax, %eax
    cpuid
    cmpl $7, %eax
    jb 1f
    movl $7, %eax
    xorl %ecx, %ecx
    cpuid
    andl $HAS_SMEP | HAS_SMAP, %ebx
    andl $HAS_UMIP, %ecx
    orl %ecx, %ebx
    movl %ebx, features
1:  popl %ebx
    ret

# EAX: bits of CR4, EDX: the feature that they need. Sets them if it is there.
set_cr4:
    testl %edx, features
    jz 1f
    movl %cr4, %ecx
    orl %ecx, %eax
    movl %eax, %cr4
1:  movl %cr4, %eax
    movl %eax, in_cr4
    ret

umip_tests:
    movl %cr4, %eax
    movl %eax, in_cr4
    umip "SGDT in ring 3", "sgdtl (%ebx)"
    umip "SIDT in ring 3", "sidtl (%ebx)"
    umip "SLDT in ring 3", "sldt (%ebx)"
    umip "STR in ring 3", "str %eax"
    umip "SMSW in ring 3", "smsw %eax"
    movl $CR4_UMIP, %eax
    movl $HAS_UMIP, %edx
    call set_cr4
    orl $CR4_UMIP, in_cr4               # what is judged
    umip "SGDT in ring 3", "sgdtl (%ebx)"
    umip "SIDT in ring 3", "sidtl (%ebx)"
    umip "SLDT in ring 3", "sldt (%ebx)"
    umip "STR in ring 3", "str %eax"
    umip "SMSW in ring 3", "smsw %eax"
    sgdtl user_page
    movl gdt_pointer + 2, %eax
    check_eq "SGDT in ring 0", user_page + 2, %eax
    str %eax
    check_eq "STR in ring 0", %eax, $SEL_TSS
    smsw %eax
    movl %cr0, %edx
    check_eq "SMSW in ring 0", %eax, %edx
    movl %cr4, %eax
    andl $~CR4_UMIP, %eax
    movl %eax, %cr4
    movl $0, in_cr4
    umip "SGDT in ring 3 again", "sgdtl (%ebx)"
    ret

smep_tests:
    smep "user code in ring 0", NONE
    movl $CR4_SMEP, %eax
    movl $HAS_SMEP, %edx
    call set_cr4
    smep "... with SMEP", PF_FETCH
    smep "... a second time", PF_FETCH
    movl trap_cr2, %eax
    testl $HAS_SMEP, features
    jnz 1f
    movl $CODE_GVA, %eax
1:  check_eq "... its address", %eax, $CODE_GVA
    movl $2f - user_code + CODE_GVA, %eax
    call enter_ring3
    judge "user code in ring 3", 0, 0, VEC_LEAVE
    movl $CODE_GVA, %eax
    movl $user_code, %edx
    orl $PTE_P, %edx
    call map_page
    smep "code that became the kernel's", NONE
    movl $CODE_GVA, %eax
    movl $user_code, %edx
    orl $PTE_P | PTE_U, %edx
    call map_page
    smep "... and the user's again", PF_FETCH
    movl %cr4, %eax
    andl $~CR4_SMEP, %eax
    movl %eax, %cr4
    smep "SMEP off", NONE
    ret
    .pushsection .data.user
2:  int $VEC_LEAVE
    .popsection

smap_tests:
    movl $0x1234, user_page
    smap "the user's page, no SMAP yet", 0, NONE, "movl (%ebx), %eax; movl %eax, (%ebx)"
    movl $CR4_SMAP, %eax
    movl $HAS_SMAP, %edx
    call set_cr4
    smap "a read with AC=0", 0, PF_READ, "movl (%ebx), %eax"
    smap "a write with AC=0", 0, PF_WRITE, "movl %eax, (%ebx)"
    smap "a read with AC=1", EFLAGS_AC, NONE, "movl (%ebx), %eax"
    smap "a write with AC=1", EFLAGS_AC, NONE, "movl $0x4321, (%ebx)"
    check_eq "... is there", user_page, $0x4321
    smap "both with AC=0 again", 0, PF_WRITE, "movl $1, (%ebx)"
    smap "the same page as the kernel's", 0, NONE, "movl KERNEL_GVA, %eax; movl %eax, KERNEL_GVA"
    smap "REP MOVSB from there", 0, PF_READ, "movl %ebx, %esi; movl $other_page, %edi; movl $8, %ecx; rep movsb"
    smap "a stack there with AC=1", EFLAGS_AC, NONE, "movl %esp, %ecx; leal 64(%ebx), %esp; pushl %eax; popl %eax; movl %ecx, %esp"
    smap "SGDT to there", 0, PF_WRITE, "sgdtl (%ebx)"
    smap "SGDT to there with AC=1", EFLAGS_AC, NONE, "sgdtl (%ebx)"
    smap "LGDT from there", 0, PF_READ, "lgdtl (%ebx)"
    smap "LGDT from there with AC=1", EFLAGS_AC, NONE, "lgdtl (%ebx)"
    invlpg USER_GVA
    smap "INVLPG, and AC=1", EFLAGS_AC, NONE, "movl (%ebx), %eax"
    smap "... and AC=0", 0, PF_READ, "movl (%ebx), %eax"
    testl $HAS_SMAP, features
    jz 1f
    smap "STAC", 0, NONE, "stac; movl (%ebx), %eax"
    smap "CLAC", EFLAGS_AC, PF_READ, "clac; movl (%ebx), %eax"
    jmp 2f
1:  smap "STAC", 0, NONE, "nop"
    smap "CLAC", 0, NONE, "nop"
2:  movl %cr0, %eax
    andl $~CR0_WP, %eax
    movl %eax, %cr0
    movl $0, user_page
    movl $FIXED_GVA, %edx
    smap "WP=0: a write to a read-only page with AC=1", EFLAGS_AC, NONE, "movl $0x77, FIXED_GVA"
    check_eq "... is there", user_page, $0x77
    smap "... with AC=0", 0, PF_WRITE, "movl $0x88, FIXED_GVA"
    movl %cr0, %eax
    orl $CR0_WP, %eax
    movl %eax, %cr0
    movl $3f - user_code + CODE_GVA, %eax
    call enter_ring3
    judge "the user itself", 0, 0, VEC_LEAVE
    call paging_off
    movl user_page, %eax                # SMAP says nothing of it
    call paging_on
    movl %cr4, %eax
    andl $~CR4_SMAP, %eax
    movl %eax, %cr4
    smap "SMAP off", 0, NONE, "movl (%ebx), %eax"
    ret
    .pushsection .data.user
3:  movl USER_GVA, %eax
    movl %eax, USER_GVA
    int $VEC_LEAVE
    .popsection

.section .data.user
.balign 4096

.bss
.balign 4096
user_page: .space 4096
other_page: .space 4096
features: .space 4
in_cr4: .space 4
