//go:build !linux

package coding

func adviseHuge([]byte) {}
