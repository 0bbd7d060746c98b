// Package hugepage asks the system for huge pages behind memory that is read and
// written at random: with small ones a look-up in a table of tens of megabytes walks
// the page tables each time, in a virtual machine twice over. Go asks for none.
package hugepage

// Size is the size of a huge page, and what a slice has to have for any.
const Size = 2 << 20
