// Package malloc, when a program imports it, has the C library keep one heap instead
// of one for each thread that allocates. Where cgo is on, Pebble takes its caches and
// memtables from there, on whichever thread comes along, and glibc gives what was freed
// in one heap to no other. Without cgo or glibc that does nothing.
package malloc
