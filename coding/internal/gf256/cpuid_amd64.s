//go:build !purego

#include "textflag.h"

// func cpuidGFNI() bool
TEXT ·cpuidGFNI(SB), NOSPLIT, $0-1
	XORL AX, AX
	XORL CX, CX
	CPUID
	CMPL AX, $7
	JLT  none
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $8, CX
	ANDL $1, CX
	MOVB CX, ret+0(FP)
	RET

none:
	MOVB $0, ret+0(FP)
	RET
