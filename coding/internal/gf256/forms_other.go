//go:build purego || (!amd64 && !arm64)

package gf256

func forms() []Form { return []Form{generic} }
