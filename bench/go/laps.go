package main

// The measuring loop, as in `bench/src/laps.rs`: warm-up, timed batches, one batch with allocations counted; and what
// the kernel charged this process, as in `bench/src/usage.rs`.

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const maxBatches = 65_536

type usage struct {
	CPUNs       uint64 `json:"cpu_ns"`
	Voluntary   uint64 `json:"voluntary"`
	Involuntary uint64 `json:"involuntary"`
}

func used() usage {
	var raw syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &raw); err != nil {
		fail("getrusage", err)
	}
	return usage{uint64(raw.Utime.Nano() + raw.Stime.Nano()), uint64(raw.Nvcsw), uint64(raw.Nivcsw)}
}

func (u usage) since(earlier usage) usage {
	return usage{u.CPUNs - earlier.CPUNs, u.Voluntary - earlier.Voluntary, u.Involuntary - earlier.Involuntary}
}

// procStatus is the number in a line of /proc/self/status.
func procStatus(field string) uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fail("/proc/self/status", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseUint(strings.Fields(value)[0], 10, 64)
			if err != nil {
				fail(field, err)
			}
			return n
		}
	}
	return 0
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

var shares = [...]float64{0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1}

// quantiles sorts the values and gives those at `shares`.
func quantiles(values []float64) [][2]float64 {
	slices.Sort(values)
	var out [][2]float64
	for _, share := range shares {
		out = append(out, [2]float64{share, values[min(int(float64(len(values))*share), len(values)-1)]})
	}
	return out
}

func at(quantiles [][2]float64, share float64) float64 {
	for _, q := range quantiles {
		if q[0] == share {
			return q[1]
		}
	}
	panic("no such share")
}

// batches makes a scenario of a batch of so many operations.
func batches(batch func(ops int), full, quick int) func(c *cell) outcome {
	return func(c *cell) outcome {
		ops := pick(c, full, quick)
		warmUp := pick(c, 40*time.Millisecond, 2*time.Millisecond)
		timed := pick(c, 100*time.Millisecond, 10*time.Millisecond)
		minBatches := pick(c, 7, 2)
		batch(ops)
		for start := time.Now(); time.Since(start) < warmUp; {
			batch(ops)
		}
		ns := make([]float64, 0, maxBatches)
		before := used()
		for start := time.Now(); len(ns) < minBatches || time.Since(start) < timed && len(ns) < maxBatches; {
			lap := time.Now()
			batch(ops)
			ns = append(ns, float64(time.Since(lap).Nanoseconds())/float64(ops))
		}
		cost := used().since(before)
		var was, is runtime.MemStats
		runtime.ReadMemStats(&was)
		batch(ops)
		runtime.ReadMemStats(&is)
		allocs := float64(is.Mallocs-was.Mallocs) / float64(ops)
		return outcome{
			Median: median(ns), Best: slices.Min(ns), Batches: len(ns), Ops: uint64(ops) * uint64(len(ns)), Usage: cost,
			AllocsPerOp: &allocs, Extras: []extra{}, Distribution: [][2]float64{},
		}
	}
}
