// Package nodump keeps a process's memory, which holds keys, out of core files.
//
// # Purpose
//
// A core file is a copy of everything that a process knew, written by the system to
// wherever it likes. Programs that hold keys call Protect first.
//
// # Invariants
//
//   - A crash writes no core file, and so does a signal that asks for one.
//   - On Linux no other process of the same user reads the memory or attaches to it.
package nodump
