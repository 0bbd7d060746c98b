package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"fcp/coding"
)

// memoryEnv makes the program a child of a memory row. It names what to do.
const memoryEnv = "FCP_BENCH_MEMORY"

// memoryK and memoryT are the size of the block of the memory rows.
const memoryK, memoryT = 50_000, 1280

// memoryReport is what a child of a memory row writes to its standard output.
type memoryReport struct {
	Peak    int64         // octets: the highest resident size of the process in all its life
	Digest  [32]byte      // of what it computed
	Elapsed time.Duration // of its work
}

// codecMemoryRows are the memory that a process takes that does nothing but
// encode or decode one large block: its highest resident size in MB (10^6
// octets), so binary, runtime and garbage count. A child process does the work,
// with the settings a program has by default. It gets what it works on through
// a pipe; what it computes is checked. The limit is the memory of the symbols
// alone: K received or given, and about as many computed.
func codecMemoryRows() []Row {
	row := func(what string, octets func() (int64, error)) Row {
		limit := inMegabytes("symbols", func() (int64, error) { return 2 * memoryK * memoryT, nil })
		return Row{Name: fmt.Sprintf("codec/memory-%s/K=%d/T=%d", what, memoryK, memoryT), Unit: "MB", Lower: true, Limit: &limit,
			Subjects: []Subject{inMegabytes("coding", octets)}}
	}
	return []Row{row("encode", memoryOfEncode), row("decode", memoryOfDecode)}
}

// inMegabytes is a subject whose value is a size.
func inMegabytes(name string, octets func() (int64, error)) Subject {
	return Subject{Name: name, NoWarmUp: true, Open: func(context.Context, Dirs) (Session, error) {
		return sessionFunc(func(context.Context, time.Duration) (Sample, error) {
			n, err := octets()
			return Sample{Value: float64(n) / 1e6, Ops: 1}, err
		}), nil
	}}
}

// memoryEncoder has encoded the block of the memory rows.
func memoryEncoder() (*coding.Encoder, []byte, error) {
	return newCodecEncoder(codecShape{k: memoryK, t: memoryT, cores: 1})
}

// memoryESI is the repair symbol that shows that an encoder computed all symbols.
const memoryESI = memoryK + 77

func memoryOfEncode() (int64, error) {
	e, block, err := memoryEncoder()
	if err != nil {
		return 0, err
	}
	want := make([]byte, memoryT)
	if err := e.Repair(want, memoryESI); err != nil {
		return 0, err
	}
	return memoryOfChild("encode", bytes.NewReader(block), sha256.Sum256(want))
}

func memoryOfDecode() (int64, error) {
	e, block, err := memoryEncoder()
	if err != nil {
		return 0, err
	}
	first := memoryK + rand.Uint32N(1<<23)
	symbols := make([]byte, (memoryK+spareRepair)*memoryT)
	if err := e.Repairs(symbols, first, memoryK+spareRepair); err != nil {
		return 0, err
	}
	id := binary.BigEndian.AppendUint32(nil, first)
	return memoryOfChild("decode", io.MultiReader(bytes.NewReader(id), bytes.NewReader(symbols)), sha256.Sum256(block))
}

// memoryOfChild runs a child and checks what it says it computed.
func memoryOfChild(what string, input io.Reader, want [32]byte) (int64, error) {
	r, err := reportOfChild(what, input)
	if err != nil {
		return 0, err
	}
	if r.Digest != want {
		return 0, fmt.Errorf("child to %s computed something else", what)
	}
	return r.Peak, nil
}

// reportOfChild runs a child.
func reportOfChild(what string, input io.Reader) (r memoryReport, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), memoryEnv+"="+what)
	cmd.Stdin, cmd.Stderr = input, os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		err = fmt.Errorf("child to %s: %w", what, err)
	}
	return r, err
}

// memoryChild does what the environment asks for and reports.
func memoryChild(what string, in io.Reader, out io.Writer) error {
	work := map[string]func(io.Reader) ([32]byte, error){
		"encode": encodeChild, "decode": decodeChild, "put": putChild, "get": getChild}[what]
	if work == nil {
		return fmt.Errorf("%s=%q", memoryEnv, what)
	}
	start := time.Now()
	sum, err := work(in)
	took := time.Since(start)
	if err != nil {
		return err
	}
	kib, err := procField("/proc/self/status", "VmHWM:")
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(memoryReport{Peak: kib << 10, Digest: sum, Elapsed: took})
}

func encodeChild(in io.Reader) ([32]byte, error) {
	shape := codecShape{k: memoryK, t: memoryT}
	block := make([]byte, shape.octets())
	if _, err := io.ReadFull(in, block); err != nil {
		return [32]byte{}, err
	}
	plan, err := coding.NewPlan(context.Background(), shape.k)
	if err != nil {
		return [32]byte{}, err
	}
	e, err := coding.NewEncoder(plan, shape.k, shape.shape(), coding.EncoderOptions{})
	if err != nil {
		return [32]byte{}, err
	}
	out := make([]byte, shape.t)
	err = errors.Join(e.Reset(block), e.Encode(context.Background()), e.Repair(out, memoryESI))
	return sha256.Sum256(out), err
}

func decodeChild(in io.Reader) ([32]byte, error) {
	shape := codecShape{k: memoryK, t: memoryT}
	d, err := coding.NewDecoder(shape.k, shape.shape(), coding.DecoderOptions{})
	if err != nil {
		return [32]byte{}, err
	}
	r := bufio.NewReader(in)
	var esi uint32
	if err := binary.Read(r, binary.BigEndian, &esi); err != nil {
		return [32]byte{}, err
	}
	symbol := make([]byte, shape.t)
	for ; !d.Complete(); esi++ {
		if _, err := io.ReadFull(r, symbol); err != nil {
			return [32]byte{}, err
		}
		if _, err := d.Add(esi, symbol); err != nil {
			return [32]byte{}, err
		}
		if d.Ready() {
			if err := d.Decode(context.Background()); err != nil && !errors.Is(err, coding.ErrNeedMore) {
				return [32]byte{}, err
			}
		}
	}
	block, err := d.Block()
	if err != nil {
		return [32]byte{}, err
	}
	sum := sha256.Sum256(block)
	_, err = io.Copy(io.Discard, r) // the spare symbols, so that the pipe does not break
	return sum, err
}
