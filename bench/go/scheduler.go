package main

// The counterparts of `spawn.rs`, `switch.rs`, `channel.rs`, `timer.rs` and `idle.rs` in `bench/src/scenarios`.

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// spawnMany spawns empty goroutines and waits for all. There is no outside in Go: every thread's code is a goroutine.
func spawnMany(ops int) {
	var wg sync.WaitGroup
	wg.Add(ops)
	done := wg.Done // Made once: `go wg.Done()` would allocate each time.
	for range ops {
		go done()
	}
	wg.Wait()
}

func hop(left int, done chan struct{}) {
	if left == 0 {
		done <- struct{}{}
	} else {
		go hop(left-1, done)
	}
}

func chained(ops int) {
	done := make(chan struct{}, 1)
	hop(ops, done)
	<-done
}

func yieldOne(ops int) {
	for range ops {
		runtime.Gosched()
	}
}

const yielders = 200

func yieldMany(ops int) {
	var wg sync.WaitGroup
	wg.Add(yielders)
	for range yielders {
		go func() {
			yieldOne(ops / yielders)
			wg.Done()
		}()
	}
	wg.Wait()
}

func pingPong(ops int) {
	done := make(chan struct{}, 1)
	var left atomic.Int64
	left.Store(int64(ops))
	pair := func() {
		ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
		go func() {
			<-ping
			pong <- struct{}{}
		}()
		ping <- struct{}{}
		<-pong
		if left.Add(-1) == 0 {
			done <- struct{}{}
		}
	}
	for range ops {
		go pair()
	}
	<-done
}

func channelOne(ops int) {
	ping, pong := make(chan uint64, 1), make(chan uint64, 1)
	ended := make(chan struct{})
	go func() {
		for number := range ping {
			pong <- number
		}
		close(ended)
	}()
	for number := range uint64(ops) {
		ping <- number
		if <-pong != number {
			panic("another number came back")
		}
	}
	close(ping)
	<-ended
}

const pairs = 64

func channelMany(ops int) {
	var wg sync.WaitGroup
	wg.Add(pairs)
	for range pairs {
		go func() {
			channelOne(ops / pairs)
			wg.Done()
		}()
	}
	wg.Wait()
}

// timerChurn uses AfterFunc, which context.WithTimeout uses: a channel's timer is armed only while somebody receives
// from it.
func timerChurn(ops int) {
	for n := 1; n <= ops; n++ {
		timer := time.AfterFunc(10*time.Second, func() {})
		if !timer.Stop() {
			panic("it fired")
		}
		if n%100 == 0 {
			runtime.Gosched()
		}
	}
}

func idlePending(c *cell) outcome {
	never := make(chan struct{})
	return idle(pick(c, 100_000, 1_000), func() { <-never })
}

func idleSleeping(c *cell) outcome {
	return idle(pick(c, 1_000_000, 1_000), func() { time.Sleep(time.Hour) })
}

// idle is what a goroutine that waits costs: its stack, and what it has on the heap.
func idle(n int, wait func()) outcome {
	var running atomic.Int64
	runtime.GC()
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	rss, before := procStatus("VmRSS"), used()
	for range n {
		go func() {
			running.Add(1)
			wait()
		}()
	}
	for running.Load() < int64(n) {
		runtime.Gosched()
	}
	cost := used().since(before)
	resident := procStatus("VmRSS") - rss
	runtime.ReadMemStats(&is)
	perTask := func(value uint64) float64 { return float64(value) / float64(n) }
	live := (is.HeapAlloc + is.StackInuse) - (was.HeapAlloc + was.StackInuse)
	extras := []extra{{"resident", "B/task", perTask(resident * 1024)}}
	out := single(perTask(live), uint64(n), cost, extras)
	allocs := perTask(is.Mallocs - was.Mallocs)
	out.AllocsPerOp = &allocs
	return out
}
