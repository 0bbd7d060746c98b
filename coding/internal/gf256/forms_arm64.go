//go:build !purego

package gf256

func forms() []Form { return []Form{generic} }
