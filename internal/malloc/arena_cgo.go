//go:build cgo && linux

package malloc

// #include <malloc.h>
//
// // Before the first thread is there: each that allocated keeps the heap it has.
// __attribute__((constructor)) static void one_heap(void) {
// #ifdef M_ARENA_MAX
// 	mallopt(M_ARENA_MAX, 1);
// #endif
// }
import "C"
