# CLI, STI, PUSHF and POPF that run so often that a hypervisor may want to run them in another way: every result must stay the same.

.set LAPIC, 0xfee00000
.set L_EOI, LAPIC + 0xb0
.set L_SVR, LAPIC + 0xf0
.set L_ICR, LAPIC + 0x300
.set L_LINT0, LAPIC + 0x350
.set MASKED, 0x10000
.set TO_SELF, 0x40000
.set VEC_A, 0x41

.set TIMES, 100                         # hot enough
.set STATUS, 0x8d5                      # CF PF AF ZF SF OF
.set EFLAGS_DF, 0x400
.set EFLAGS_IOPL, 0x3000
.set EFLAGS_NT, 0x4000
.set EFLAGS_AC, 0x40000
.set EFLAGS_ID, 0x200000
.set ALIAS, 0x00c00000                  # where the text appears a second time

.macro ask
    movl $TO_SELF | VEC_A, %eax
    movl %eax, L_ICR
.endm

# check_places "text", address: each of TIMES interrupts came at this address.
.macro check_places text:req, place:req
    movl $\place, %eax
    imull $TIMES, %eax, %eax
    check_eq "\text", places, %eax
.endm

guest_main:
    plan 75
    movl $0x1ff, %eax
    movl %eax, L_SVR
    movl $MASKED, %eax
    movl %eax, L_LINT0
    hook VEC_A, on_ipi
    call checksum
    movl %eax, first_sum
    call flags_in_order
    call pending
    call inside
    call traps
    movl $PTE_W, %edx
    call paging_identity
    movl $LAPIC, %eax
    movl $LAPIC | PTE_P | PTE_W, %edx
    call map_page
    call paging_on
    call flags_in_order
    call pending
    call inside
    call traps
    call stack_faults
    call other_addresses
    call rewritten
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

# Counts, and adds up where it came from and with which flags.
on_ipi:
    incl arrived
    movl FRAME_EIP(%ebp), %eax
    addl %eax, places
    movl FRAME_EFLAGS(%ebp), %eax
    andl $STATUS | EFLAGS_IF | EFLAGS_DF, %eax
    addl %eax, came_flags
    xorl %eax, %eax
    movl %eax, L_EOI
    ret

reset:
    movl $0, arrived
    movl $0, places
    movl $0, came_flags
    ret

# The sites. Each is used by several tests.
    .balign 4096
site s_cli, "cli; nop; nop; nop; nop; nop; ret"
site s_sti, "sti; nop; nop; nop; nop; nop; ret"
site s_sti_ret, "sti; ret"
    .balign 16, 0
site s_save, "pushfl; popl %eax; nop; nop; nop; nop; ret"
site s_restore, "pushl %eax; popfl; nop; nop; nop; nop; ret"
site s_popf, "pushl %eax; incl %edi; popfl; leal 1(%esi), %esi; ret"
s_popf_at = s_popf + 2
site s_save_cli, "pushfl; popl %eax; cli; testl $0x200, %eax; ret"
site s_all, "pushfl; cli; sti; cli; popfl; ret"
site s_branch, "cli; testl %eax, %eax; jz 1f; incl %ebx; ret; 1: decl %ebx; ret"
site s_overlap, "cli; movl $0xc3909090, %eax; ret"    # inside: nop; nop; nop; ret
site s_load, "cli; movl (%esi), %edx; addl %edx, %ebx; sti; ret"
site s_turn, "cli; nop; nop; nop; nop; nop; ret"
site s_sti_cli, "sti; cli; nop; nop; nop; ret"
site s_sti_hlt, "sti; hlt; cli; nop; nop; ret"
site s_loop, "cli; sti; decl %ecx; jnz s_loop; cli; ret"
    .balign 4096
text_end:

flags_in_order:
    call reset
    # STC, and an odd sum: CF and PF are known, and both halves of the images are compared.
    movl $0, sum
    movl $0, %ebx
    repeat 1f
    jmp 2f
1:  stc
    call s_sti
    adcl $0, %ebx
    xorl %ecx, %ecx                     # ZF PF
    call s_save
    addl %eax, sum
    xorl %ecx, %ecx
    call s_cli
    jnz 3f
    incl %ebx
3:  xorl %ecx, %ecx
    call s_save
    addl %eax, sum
    ret
2:  check_eq "CLI and STI leave the flags alone", %ebx, $TIMES * 2
    check_eq "PUSHF shows IF as it is, and all else", sum, $TIMES * (0x246 + 0x46)
    movl $0, sum
    movl $0, %ebx
    repeat 1f
    jmp 2f
1:  movl $EFLAGS_IF | EFLAGS_DF | EFLAGS_AC | EFLAGS_ID | STATUS | 2, %eax
    call s_restore
    call s_save
    cld
    addl %eax, sum
    movl $2, %eax
    call s_restore
    call s_save
    addl %eax, %ebx
    ret
2:  check_eq "POPF loads all it may", sum, $TIMES * (0x240000 + 0x200 + 0x400 + STATUS + 2)
    check_eq "... and clears it", %ebx, $TIMES * 2
    movl $0, sum
    movl $EFLAGS_IOPL | EFLAGS_NT | 2, %eax
    call s_restore
    call s_save
    check_eq "IOPL and NT", %eax, $EFLAGS_IOPL | EFLAGS_NT | 2
    call s_sti
    call s_save
    andl $~STATUS, %eax
    check_eq "... IF with them", %eax, $EFLAGS_IOPL | EFLAGS_NT | EFLAGS_IF | 2
    call s_cli
    movl $2, %eax
    call s_restore
    call s_save
    check_eq "... and without them", %eax, $2
    repeat 1f
    jmp 2f
1:  call s_sti
    call s_save_cli
    jz 4f
    call s_save_cli
    jnz 4f
    incl sum
4:  ret
2:  check_eq "PUSHF; POP; CLI", sum, $TIMES
    movl $0, sum
    repeat 1f
    jmp 2f
1:  pushl $0xad7
    popfl
    call s_all
    pushfl
    popl %eax
    addl %eax, sum
    pushl $0x2
    popfl
    call s_all
    pushfl
    popl %eax
    addl %eax, sum
    ret
2:  check_eq "all four in a row", sum, $TIMES * (0xad7 + 2)
    movl $0, sum
    movl $0, %ebx
    repeat 1f
    jmp 2f
1:  movl %ebp, %eax
    andl $1, %eax
    call s_branch
    ret
2:  check_eq "a branch behind it", %ebx, $0
    movl $10 * TIMES, %ecx
    call s_loop
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "a loop of them", %eax, $0
    ret

# An interrupt waits.
pending:
    call reset
    repeat 1f
    jmp 2f
1:  call s_cli
    ask
    call s_save
    call s_sti
    ret
2:  call s_cli
    check_eq "STI: all interrupts came", arrived, $TIMES
    check_places "... one instruction later", "s_sti + 2"
    call reset
    repeat 1f
    jmp 2f
1:  call s_cli
    ask
    call s_sti_ret
3:  ret
2:  call s_cli
    check_eq "STI; RET: all interrupts came", arrived, $TIMES
    check_places "... behind RET", "3b"
    call reset
    repeat 1f
    jmp 2f
1:  call s_cli
    ask
    movl $EFLAGS_IF | 0x55, %eax
    call s_restore
    ret
2:  call s_cli
    check_eq "POPF: all interrupts came", arrived, $TIMES
    check_places "... at once", "s_restore + 2"
    andl $0x00ffffff, came_flags
    check_eq "... with the new flags", came_flags, $TIMES * (EFLAGS_IF | 0x55)
    call reset
    repeat 1f
    jmp 2f
1:  call s_cli
    ask
    movl $2, %eax
    call s_restore
    ret
2:  check_eq "POPF without IF: none comes", arrived, $0
    call s_sti
    call s_cli
    check_eq "... until STI", arrived, $1
    call reset
    repeat 1f
    jmp 2f
1:  call s_cli
    ask
    call s_sti_cli
    ret
2:  check_eq "STI; CLI: none comes", arrived, $0
    call s_sti
    call s_cli
    call reset
    repeat 1f
    jmp 2f
1:  call s_cli
    ask
    call s_sti_hlt
    ret
2:  check_eq "STI; HLT: each wakes", arrived, $TIMES
    check_places "... behind HLT", "s_sti_hlt + 2"
    ret

# Jumps among the instructions of a hot site.
inside:
    call s_sti
    repeat s_overlap
    movl $0, sum
    repeat 1f
    jmp 2f
1:  call s_sti
    movl $s_cli + 1, %eax
    call *%eax
    movl $s_save_cli + 2, %eax
    call s_sti
    movl $s_save_cli + 3, %ecx
    movl $EFLAGS_IF, %eax
    call *%ecx
    jz 3f
    incl sum
3:  call s_save
    andl $EFLAGS_IF, %eax
    addl %eax, sum
    ret
2:  check_eq "jumps behind the first instruction", sum, $TIMES * (EFLAGS_IF + 1)
    movl $0x1234, %eax
    call s_sti
    movl $s_overlap + 2, %ecx
    call *%ecx
    check_eq "a jump into an instruction", %eax, $0x1234
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "... IF as it was", %eax, $EFLAGS_IF
    call s_overlap
    check_eq "... and the instruction is itself", %eax, $0xc3909090
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "... and the CLI before it", %eax, $0
    ret

# Single steps and faults.
traps:
    movl $0, %ebx
    movl $one, %esi
    repeat s_load
    call s_cli
    check_eq "CLI, a load, and STI", %ebx, $TIMES
    call steps
    call reset
    movl $0, %ebx
    repeat 1f
    jmp 2f
1:  call s_cli
    movl $TO_SELF | VEC_A, %eax
    movl %eax, L_ICR
    movl $EFLAGS_IF | 2, %eax
    call s_popf
    ret
2:  call s_cli
    check_eq "POPF among others", arrived, $TIMES
    check_places "... where it ends", "s_popf + 3"
    ret

# How many steps through the hot sites, and the sum of their addresses.
steps:
    hook VEC_DB, on_step
    movl $0, stepped
    movl $0, step_sum
    movl $EFLAGS_TF | 2, %eax
    call s_restore                      # the trap comes one instruction later
    # No STI: QEMU has no trap behind it, Bochs has.
    call s_cli
    call s_save
    pushl $2
    popfl
    hook VEC_DB, 0
    check_eq "single steps through hot sites", stepped, $23
    movl step_sum, %eax
    check_eq "... at the right addresses", %eax, $0
    ret

on_step:
    incl stepped
    movl FRAME_EIP(%ebp), %eax          # must lie on the way
    cmpl $guest_main, %eax
    jb 1f
    cmpl $end_of_tests, %eax
    jb 2f
1:  incl step_sum
2:  movl $0, %eax
    movl %eax, %dr6
    ret

# Below the stack pointer is nothing: CLI and STI do not care.
stack_faults:
    movl $stack_page, %eax
    movl $0, %edx
    call map_page
    movl $TIMES, %edi
    movl %esp, saved_esp
1:  movl $2f, stack_page_top
    movl $stack_page_top, %esp
    jmp s_cli
2:  movl $3f, stack_page_top
    movl $stack_page_top, %esp
    jmp s_sti
3:  decl %edi
    jnz 1b
    movl saved_esp, %esp
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "CLI and STI at the end of a stack", %eax, $EFLAGS_IF
    call s_cli
    ret

# Hot code at a second address, and other code where a hypervisor may have put its own.
other_addresses:
    movl $s_cli, %edx
    andl $0xfffff000, %edx
    orl $PTE_P | PTE_W, %edx
    movl $ALIAS, %eax
    call map_page
    movl $0, sum
    repeat 1f
    jmp 2f
1:  movl $ALIAS + (s_sti - s_cli), %esi
    call *%esi
    call s_save
    andl $EFLAGS_IF, %eax
    addl %eax, sum
    movl $ALIAS, %esi
    call *%esi
    call s_save
    andl $EFLAGS_IF, %eax
    addl %eax, sum
    ret
2:  check_eq "hot code at a second address", sum, $TIMES * EFLAGS_IF
    movl $0, %ebx
    movl $0xfb000000, %edi
    call foreign
    movl $0xfc000000, %edi
    call foreign
    repeat s_cli
    call s_sti
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "code 80 and 64 MiB below", %ebx, $2 * TIMES
    check_eq "... and the hot code", %eax, $EFLAGS_IF
    call s_cli
    ret

# Code at s_cli + EDI, which adds to EBX; between calls of the hot code.
foreign:
    leal s_cli(%edi), %eax
    movl $other_page, %edx
    movl $0xc343, (%edx)                # inc %ebx; ret
    orl $PTE_P | PTE_W, %edx
    call map_page
    repeat 1f
    ret
1:  leal s_cli(%edi), %eax
    call *%eax
    call s_sti
    call s_cli
    ret

# The guest writes its hot code.
rewritten:
    repeat s_turn
    call s_sti
    movb $0x90, s_turn
    call s_turn
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "CLI that became a NOP", %eax, $EFLAGS_IF
    movb $0xfa, s_turn
    call s_turn
    call s_save
    andl $EFLAGS_IF, %eax
    check_eq "... and CLI again", %eax, $0
    repeat s_turn
    movb $0x43, s_turn + 3
    movl $0, %ebx
    repeat s_turn
    check_eq "a NOP behind it that became INC", %ebx, $TIMES
    movb $0x90, s_turn + 3
    call s_turn
    check_eq "... and a NOP again", %ebx, $TIMES
    ret
end_of_tests:

.data
.balign 4
one: .long 1
.bss
.balign 4096
stack_page: .space 4096
stack_page_top: .space 4096
other_page: .space 4096
arrived: .space 4
places: .space 4
came_flags: .space 4
sum: .space 4
stepped: .space 4
step_sum: .space 4
first_sum: .space 4
saved_esp: .space 4
