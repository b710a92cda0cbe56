# The time stamp counter written, by itself and by IA32_TSC_ADJUST. Only what does not depend on speed is printed.

.set TSC, 0x10
.set TSC_ADJUST, 0x3b

.macro rdmsr_from number:req
    movl $\number, %ecx
    rdmsr
.endm

guest_main:
    plan 17
    movl $7, %eax
    xorl %ecx, %ecx
    cpuid
    andl $2, %ebx
    check_eq "CPUID tells of IA32_TSC_ADJUST", %ebx, $2
    rdmsr_from TSC_ADJUST
    movl %edx, %ebx
    check_eq "it is 0", %eax, $0
    check_eq "... its upper half too", %ebx, $0

    wrmsr_to TSC_ADJUST, 0x1000, 0x89abcdef
    rdmsr_from TSC_ADJUST
    movl %edx, %ebx
    check_eq "it keeps what is written", %eax, $0x89abcdef
    check_eq "... its upper half too", %ebx, $0x1000
    rdtsc
    andl $0xfffff000, %edx
    check_eq "RDTSC is ahead", %edx, $0x1000
    rdmsr_from TSC
    andl $0xfffff000, %edx
    check_eq "RDMSR too", %edx, $0x1000
    run_ring3 reading
    movl trap_edx, %eax
    andl $0xfffff000, %eax
    check_eq "ring 3 reads the same", %eax, $0x1000
    movl %cr4, %ebx
    movl %ebx, %eax
    orl $CR4_TSD, %eax
    movl %eax, %cr4
    fault3 "CR4.TSD keeps ring 3 from it", VEC_GP, 0, rdtsc
    rdtsc
    andl $0xfffff000, %edx
    check_eq "... but not ring 0", %edx, $0x1000
    movl %ebx, %cr4
    run_ring3 reading
    movl trap_edx, %eax
    andl $0xfffff000, %eax
    check_eq "... and ring 3 reads it again", %eax, $0x1000
    wrmsr_to TSC_ADJUST, 0, 0
    rdtsc
    andl $0xfffff000, %edx
    check_eq "it is as before", %edx, $0

    rdtsc
    movl %edx, %esi
    wrmsr_to TSC, 0x70000000, 0
    rdtsc
    check_eq "the counter is written", %edx, $0x70000000
    rdmsr_from TSC
    check_eq "... RDMSR says so", %edx, $0x70000000
    rdmsr_from TSC_ADJUST
    testl %edx, %edx
    setnz %al
    movzbl %al, %eax
    check_eq "... IA32_TSC_ADJUST follows", %eax, $1
    rdmsr_from TSC_ADJUST
    addl $1, %eax
    adcl $0, %edx
    movl $TSC_ADJUST, %ecx
    wrmsr
    rdtsc
    check_eq "... and can be changed by little", %edx, $0x70000000
    wrmsr_to TSC_ADJUST, 0, 0
    rdtsc
    subl %esi, %edx
    shrl $1, %edx                       # its upper half may have come round once
    check_eq "the counter went on meanwhile", %edx, $0
    ret

reading:
    rdtsc
    int $VEC_LEAVE
