# The harness of the benchmark guest: a list of operations, each measured in rounds.
#
# For each round it prints `NAME COUNT TICKS CALIBRATION` on COM1: how often the operation was done, the TSC ticks that all of
# them took, and the ticks of a loop of 2 * CALIBRATION_COUNT instructions just before. Under an instruction counter ticks are
# instructions; on a clock the calibration makes rounds and machines comparable.
#
# Around each round the port MARK gets a number, and 0 after it. Gnomon counts exits between the two (marks=on); anywhere else
# nobody listens. Both writes lie outside what is timed.
#
# Arguments: rounds=N, only=PREFIX (operations whose name begins so), list=1.

.set MARK, 0x5e0
.set IO_PORT, 0x5e4                     # where nobody answers
.set CALIBRATION_COUNT, 20000

.set OP_NAME, 0
.set OP_COUNT, 4
.set OP_BODY, 8
.set OP_PREPARE, 12
.set OP_NEEDS, 16                       # address of a byte that is 0 where the CPU lacks what is measured
.set OP_SIZE, 20

# operation name, count, body, prepare, needs: `body` does the operation ECX times, `prepare` runs before each round. Both may
# change every register but ESP.
.macro operation name:req, count:req, body:req, prepare=nothing, needs=always
    .pushsection .rodata
.Lname_\@: .asciz "\name"
    .popsection
    .pushsection .rodata.operations, "a"
    .long .Lname_\@, \count, \body, \prepare, \needs
    .popsection
.endm

# simple name, instructions: an operation that is a few instructions in a loop. EBX: the work window, ESI: the page
# directory, EDI: the window's first entry, EBP: an entry's value.
.macro simple name:req, first, second, third, fourth
    .text
.Lbody_\@:
    movl $WORK, %ebx
    movl $kernel_pd, %esi
    movl $work_pt, %edi
    movl $POOL | PTE_FULL, %ebp
1:  \first
    \second
    \third
    \fourth
    decl %ecx
    jnz 1b
    ret
    operation \name, 1000, .Lbody_\@, full_work
.endm

.pushsection .rodata.operations, "a"
.balign 4
operations:
.popsection

.text
guest_main:
    call read_arguments
    call find_features
    call build_tables
    call set_gates
    movl $operations, %ebx
1:  call selected
    jz 3f
    movl OP_NEEDS(%ebx), %eax
    cmpb $0, (%eax)
    jne 2f
    say "skip "
    movl OP_NAME(%ebx), %eax
    call print
    say "\n"
    jmp 3f
2:  call run_operation
3:  incl number_now
    addl $OP_SIZE, %ebx
    cmpl $operations_end, %ebx
    jb 1b
    say "END\n"
    xorl %eax, %eax
    jmp exit

# EBX: operation. ZF if its name does not begin with the argument `only`.
selected:
    movl only, %edi
    testl %edi, %edi
    jz 3f
    movl OP_NAME(%ebx), %esi
1:  movb (%edi), %al
    testb %al, %al
    jz 3f
    cmpb $' ', %al
    je 3f
    cmpb (%esi), %al
    jne 2f
    incl %esi
    incl %edi
    jmp 1b
2:  xorl %eax, %eax                     # ZF
    ret
3:  orl $1, %eax
    ret

run_operation:
    movl $1, round_now
1:  call run_round
    movl round_now, %eax
    incl round_now
    cmpl rounds, %eax
    jb 1b
    ret

run_round:
    pushl %ebx
    call *OP_PREPARE(%ebx)
    popl %ebx
    pushl %ebx
    movl $0, own_ticks
    movl number_now, %eax
    shll $4, %eax
    movl round_now, %edx
    cmpl $15, %edx
    jbe 1f
    movl $15, %edx
1:  orl %edx, %eax
    movw $MARK, %dx
    outl %eax, %dx
    rdtsc
    movl %eax, %esi
    movl $CALIBRATION_COUNT, %ecx
2:  decl %ecx
    jnz 2b
    rdtsc
    subl %esi, %eax
    movl %eax, calibration
    movl OP_COUNT(%ebx), %ecx
    rdtsc
    movl %eax, started
    movl %edx, started + 4
    call *OP_BODY(%ebx)
    rdtsc
    movl %eax, %esi
    movl %edx, %edi
    xorl %eax, %eax
    movw $MARK, %dx
    outl %eax, %dx
    subl started, %esi
    sbbl started + 4, %edi
    jz 3f
    movl $0xffffffff, %esi              # a pause of seconds: as long as can be said
3:  movl own_ticks, %eax
    testl %eax, %eax
    jz 4f
    movl %eax, %esi
4:  popl %ebx
    movl OP_NAME(%ebx), %eax
    call print
    say " "
    movl OP_COUNT(%ebx), %eax
    call print_decimal
    say " "
    movl %esi, %eax
    call print_decimal
    say " "
    movl calibration, %eax
    call print_decimal
    say "\n"
nothing:
    ret

read_arguments:
    movl $1f, %eax
    call argument
    testl %eax, %eax
    jz 3f
    call number
    testl %eax, %eax
    jz 3f
    movl %eax, rounds
3:  movl $2f, %eax
    call argument
    movl %eax, only
    ret
    .pushsection .rodata
1:  .asciz "rounds="
2:  .asciz "only="
    .popsection

# SYSENTER by CPUID; 32-bit SYSCALL where the CPU is AMD's.
find_features:
    movl $1, %eax
    cpuid
    btl $11, %edx
    setc has_sysenter
    xorl %eax, %eax
    cpuid
    cmpl $0x68747541, %ebx              # "Auth"
    jne 1f
    movl $0x80000001, %eax
    cpuid
    btl $11, %edx
    setc has_syscall
1:  ret

.section .rodata
always: .byte 1
.data
.balign 4
rounds: .long 3
.bss
.balign 8
started: .space 8
number_now: .space 4
round_now: .space 4
calibration: .space 4
own_ticks: .space 4                     # what an operation measured itself
only: .space 4
has_sysenter: .space 1
has_syscall: .space 1
