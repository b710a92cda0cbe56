# Results: a plan, numbered lines, a status.

.text
# EAX: how many results there will be.
tap_plan:
    movl %eax, tap_planned
    say "1.."
    call print_decimal
    say "\n"
    ret

# EAX: 1 passed, 0 failed. Prints "ok 3 - " or "not ok 3 - "; the caller prints the rest and the end of the line.
.globl tap_open
tap_open:
    pushl %eax
    incl tap_done
    testl %eax, %eax
    jnz 1f
    movl $1, tap_failed
    say "not "
1:  say "ok "
    movl tap_done, %eax
    call print_decimal
    say " - "
    popl %eax
    ret

# Stack: text, got, want.
tap_equal:
    pushal
    movl 36(%esp), %ebx
    movl 40(%esp), %esi
    movl 44(%esp), %edi
    xorl %eax, %eax
    cmpl %esi, %edi
    sete %al
    call tap_open
    xchgl %eax, %ebx
    call print
    testl %ebx, %ebx
    jnz 1f
    say " (got "
    movl %esi, %eax
    call print_hex
    say ", expected "
    movl %edi, %eax
    call print_hex
    say ")"
1:  say "\n"
    popal
    ret $12

# Stack: the wanted trap (text, vector, error, mask of the error, eip, cr2).
tap_trap:
    pushal
    movl 36(%esp), %ebx
    xorl %ecx, %ecx
    movl trap_vector, %eax
    cmpl 4(%ebx), %eax
    jne 1f
    movl trap_error, %eax
    movl 8(%ebx), %edx
    cmpl $ANY, %edx
    je 2f
    xorl %edx, %eax
    testl 12(%ebx), %eax
    jnz 1f
2:  movl trap_eip, %eax
    movl 16(%ebx), %edx
    call same_or_any
    jne 1f
    movl trap_cr2, %eax
    movl 20(%ebx), %edx
    call same_or_any
    jne 1f
    incl %ecx
1:  movl %ecx, %eax
    call tap_open
    movl (%ebx), %eax
    call print
    testl %ecx, %ecx
    jnz 3f
    say " (got "
    movl $trap_vector, %esi
    call print_trap
    say ", expected "
    pushl 20(%ebx)
    pushl 16(%ebx)
    pushl 8(%ebx)
    pushl 4(%ebx)
    movl %esp, %esi
    call print_trap
    addl $16, %esp
    say ")"
3:  say "\n"
    popal
    ret $4

same_or_any:
    cmpl $ANY, %edx
    je 1f
    cmpl %eax, %edx
1:  ret

# ESI: vector, error, eip, cr2.
print_trap:
    movl (%esi), %eax
    cmpl $NONE, %eax
    jne 1f
    say "no trap"
    ret
1:  say "vector "
    call print_decimal
    say " error "
    movl 4(%esi), %eax
    call print_hex_or_any
    say " eip "
    movl 8(%esi), %eax
    call print_hex_or_any
    say " cr2 "
    movl 12(%esi), %eax
    call print_hex_or_any
    ret

print_hex_or_any:
    cmpl $ANY, %eax
    jne print_hex
    say "any"
    ret

# Prints the last line; EAX: the status (0: all as planned).
tap_finish:
    movl tap_failed, %eax
    movl tap_done, %ecx
    cmpl tap_planned, %ecx
    je 1f
    say "# results: "
    xchgl %eax, %ecx
    call print_decimal
    say ", planned: "
    movl tap_planned, %eax
    call print_decimal
    say "\n"
    movl $2, %eax
1:  say "# status "
    call print_decimal
    say "\n"
    ret

.bss
.balign 4
tap_planned: .space 4
tap_done: .space 4
tap_failed: .space 4
