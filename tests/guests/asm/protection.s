# The protection matrix: U/S, R/W and presence in both table levels, CR0.WP, and from each ring a read, a write and a
# fetch. One result for each pair of entries; a failed one lists the six accesses, got and expected.

.set WINDOW, 0x40000000
.set FRAME, 0x01000000

guest_main:
    plan 49
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $WINDOW, %eax
    movl $FRAME | PTE_P | PTE_W, %edx
    call map_page
    movb $0xc3, WINDOW                  # a RET, for fetches in ring 0
    movl $0x0030cd, WINDOW + 16         # INT 0x30, for fetches in ring 3
    movl $WINDOW, %eax
    call pte_of
    movl %eax, pte
    movl page_directory, %eax
    addl $(WINDOW >> 22) * 4, %eax
    movl %eax, pde

    movl $1, wp
1:  call set_wp
    xorl %esi, %esi                     # bits 0 to 2: P, W, U of the PDE, bits 3 to 5: of the PTE
2:  call one_pair
    incl %esi
    cmpl $64, %esi
    jne 2b
    decl wp
    jns 1b
    call instructions
    ret

set_wp:
    movl %cr0, %eax
    andl $~CR0_WP, %eax
    cmpl $0, wp
    je 1f
    orl $CR0_WP, %eax
1:  movl %eax, %cr0
    ret

one_pair:
    # Absent directory entries need only be tried with one table entry, and absent table entries likewise.
    movl %esi, %eax
    andl $7, %eax
    testl $1, %eax
    jnz 1f
    cmpl $0x38, %esi                    # PDE absent: only with PTE = all rights, and PDE flags 0
    je 1f
    ret
1:  movl %esi, %ecx
    shrl $3, %ecx
    testl $1, %ecx
    jnz 2f
    testl $6, %ecx                      # PTE absent: its other bits do not matter, test them zero
    jz 2f
    ret
2:  movl pde, %ebx
    andl $~7, (%ebx)
    orl %eax, (%ebx)
    movl pte, %ebx
    andl $~7, (%ebx)
    orl %ecx, (%ebx)
    movl %cr3, %eax
    movl %eax, %cr3
    call run_accesses
    call expect_accesses
    call report
    ret

# Fills `got` with 6 error codes, or NO_FAULT.
.set NO_FAULT, 0xff
run_accesses:
    try 1f
    movl WINDOW, %eax
1:  call outcome
    movb %al, got
    try 1f
    movl %eax, WINDOW + 32
1:  call outcome
    movb %al, got + 1
    try 1f
    movl $WINDOW, %eax
    call *%eax
1:  call outcome
    movb %al, got + 2
    run_ring3 2f
    call outcome
    movb %al, got + 3
    run_ring3 3f
    call outcome
    movb %al, got + 4
    movl $WINDOW + 16, %eax
    call enter_ring3
    call outcome
    movb %al, got + 5
    ret
2:  movl WINDOW, %eax
    int $VEC_LEAVE
3:  movl %eax, WINDOW + 32
    int $VEC_LEAVE

outcome:
    cmpl $VEC_PF, trap_vector
    movl $NO_FAULT, %eax
    jne 1f
    movl trap_error, %eax
    movl trap_cr2, %edx                 # a wrong address counts as a wrong error code
    andl $~0x3f, %edx
    cmpl $WINDOW, %edx
    je 1f
    movl $0xee, %eax
1:  ret

# The model. Fills `want`.
expect_accesses:
    movl %esi, %ecx
    shrl $3, %ecx
    andl %esi, %ecx
    andl $7, %ecx                       # rights of both levels together
    xorl %edi, %edi
1:  xorl %eax, %eax                     # the error code that a fault would have
    cmpl $3, %edi
    jb 2f
    orl $PF_U, %eax
2:  movzbl is_write(%edi), %edx
    orl %edx, %eax
    testl $PTE_P, %ecx
    jz 5f                               # not present: faults, with P=0
    orl $PF_P, %eax
    testl $PF_U, %eax
    jnz 3f
    testl $PF_W, %eax                   # ring 0: only writes to read-only pages fault, and only with WP=1
    jz 4f
    testl $PTE_W, %ecx
    jnz 4f
    cmpl $0, wp
    jne 5f
    jmp 4f
3:  testl $PTE_U, %ecx                  # ring 3
    jz 5f
    testl $PF_W, %eax
    jz 4f
    testl $PTE_W, %ecx
    jz 5f
4:  movl $NO_FAULT, %eax
5:  movb %al, want(%edi)
    incl %edi
    cmpl $6, %edi
    jne 1b
    ret

report:
    xorl %eax, %eax
    movl got, %edx
    cmpl want, %edx
    jne 1f
    movw got + 4, %dx
    cmpw want + 4, %dx
    jne 1f
    incl %eax
1:  pushl %eax
    call tap_open
    say "WP="
    movl wp, %eax
    call print_decimal
    say " PDE "
    movl %esi, %eax
    call print_rights
    say " PTE "
    movl %esi, %eax
    shrl $3, %eax
    call print_rights
    popl %eax
    testl %eax, %eax
    jnz 2f
    say " (got"
    movl $got, %ebx
    call print_outcomes
    say ", expected"
    movl $want, %ebx
    call print_outcomes
    say ")"
2:  say "\n"
    ret

print_rights:
    movl %eax, %edx
    movb $'U', %al
    testb $PTE_U, %dl
    call letter_or_dash
    movb $'W', %al
    testb $PTE_W, %dl
    call letter_or_dash
    movb $'P', %al
    testb $PTE_P, %dl
letter_or_dash:
    jnz 1f
    movb $'-', %al
1:  jmp print_char

print_outcomes:
    xorl %edi, %edi
1:  say " "
    movzbl (%ebx, %edi), %eax
    call print_decimal
    incl %edi
    cmpl $6, %edi
    jne 1b
    ret

# Single instructions on a read-only page: what counts as a write.
.macro write_fault text, instruction:vararg
    try .Lafter_\@
    movl $WINDOW, %edi
    movl $1, %ecx
    xorl %eax, %eax
.Lat_\@:
    \instruction
.Lafter_\@:
    expect_trap "\text", VEC_PF, PF_P | PF_W, .Lat_\@, WINDOW
.endm

instructions:
    movl $1, wp
    call set_wp
    movl $WINDOW, %eax
    movl $FRAME | PTE_P, %edx
    call map_page
    write_fault "XCHG writes", xchgl %eax, (%edi)
    write_fault "CMPXCHG that fails writes too", lock cmpxchgl %ecx, (%edi)
    write_fault "ADD 0 writes", addl $0, (%edi)
    write_fault "BTS writes", btsl $0, (%edi)
    write_fault "STOS writes", stosl
    write_fault "INC of one byte writes", incb (%edi)
    try 1f
    movl $WINDOW, %edi
    cmpl $0, (%edi)
    testl $1, (%edi)
    btl $0, (%edi)
1:  expect_no_trap "CMP, TEST and BT do not"
    ret

.section .rodata
is_write: .byte 0, PF_W, 0, 0, PF_W, 0
.bss
.balign 4
pte: .space 4
pde: .space 4
wp: .space 4
got: .space 8
want: .space 8
