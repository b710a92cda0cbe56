# INS and OUTS: to and from the UART's scratch register, and across pages.

.text
strings:
    # INSB from the scratch register.
    movw $SCRATCH, %dx
    movb $0x77, %al
    outb %al, %dx
    movl $buffer + 1, %edi
    movl $7, %ecx
    rep
    insb
    check_eq "REP INSB: ECX is 0", %ecx, $0
    check_eq "... EDI has moved", %edi, $buffer + 8
    movl buffer, %eax
    check_eq "... the first bytes, and none before", %eax, $0x77777700
    movl buffer + 4, %eax
    check_eq "... the last ones", %eax, $0x77777777
    std
    movl $buffer + 12, %edi
    insb
    cld
    check_eq "INSB downwards", %edi, $buffer + 11
    # OUTSB to the scratch register: the last byte stays.
    movl $bytes, %esi
    movl $3, %ecx
    rep
    outsb
    xorl %eax, %eax
    inb %dx, %al
    check_eq "REP OUTSB: the last byte", %eax, $0x33
    check_eq "... ESI has moved", %esi, $bytes + 3
    xorl %ecx, %ecx
    rep
    outsb
    check_eq "REP OUTSB with ECX 0 does nothing", %esi, $bytes + 3

    # Text straight to the UART.
    call drain
    movw $COM1, %dx
    movl $text, %esi
    movl $text_end - text, %ecx
    rep
    outsb
    call drain

    # Across pages: the second is absent at first.
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $WINDOW, %eax
    movl $0x01000000 | PTE_P | PTE_W, %edx
    call map_page
    movw $SCRATCH, %dx
    movb $0x99, %al
    outb %al, %dx
    try 1f
    movl $WINDOW + 0xffc, %edi
    movl $9, %ecx
2:  rep
    insb
1:  expect_trap "REP INSB into an absent page", VEC_PF, PF_W, 2b, WINDOW + 0x1000
    check_eq "... ECX says what is left", trap_ecx, $5
    check_eq "... EDI where it was", trap_edi, $WINDOW + 0x1000
    hook VEC_PF, on_page_fault
    movw $SCRATCH, %dx
    movl $WINDOW + 0xffc, %edi
    movl $9, %ecx
    rep
    insb
    hook VEC_PF, 0
    check_eq "... resumed after the fault", %ecx, $0
    movl WINDOW + 0x1001, %eax
    check_eq "... all bytes are there", %eax, $0x99999999
    ret

on_page_fault:
    movl trap_cr2, %eax
    movl $0x01005000 | PTE_P | PTE_W, %edx
    call map_page
    ret

.section .rodata
bytes: .byte 0x11, 0x22, 0x33
text: .ascii "# by REP OUTSB\n"
text_end:
