package main

// The counterparts of `fan.rs` in `bench/src/scenarios`, and of the larger ones in the files beside it.

import (
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func spawnDetached(ops int) {
	done := make(chan struct{}, 1)
	var left atomic.Int64
	left.Store(int64(ops))
	count := func() {
		if left.Add(-1) == 0 {
			done <- struct{}{}
		}
	}
	for range ops {
		go count()
	}
	<-done
}

var sink atomic.Uint64

type state interface {
	[16]byte | [256]byte | [1024]byte
}

func spawnSized[T state](ops int) {
	var wg sync.WaitGroup
	wg.Add(ops)
	for range ops {
		var state T
		go func(state T) {
			// It is looked at and never found, so that it has to be brought; without an address it stays off the heap.
			if state[7] == 255 {
				sink.Add(1)
			}
			wg.Done()
		}(state)
	}
	wg.Wait()
}

// spawnOutside has goroutines in place of the threads: there is no outside.
func spawnOutside(threads int) func(ops int) {
	return func(ops int) {
		var wg sync.WaitGroup
		for range threads {
			wg.Go(func() { spawnMany(ops / threads) })
		}
		wg.Wait()
	}
}

func spawnOutsideBusy(c *cell) outcome {
	var stop atomic.Bool
	var busy sync.WaitGroup
	for range 8 {
		busy.Go(func() {
			for !stop.Load() {
				runtime.Gosched()
			}
		})
	}
	out := batches(spawnMany, 10_000, 200)(c)
	stop.Store(true)
	busy.Wait()
	return out
}

const crowd = 10_000

func yieldCrowd(ops int) {
	var wg sync.WaitGroup
	wg.Add(crowd)
	for range crowd {
		go func() {
			yieldOne(ops / crowd)
			wg.Done()
		}()
	}
	wg.Wait()
}

func channelCrowd(ops int) {
	var wg sync.WaitGroup
	wg.Add(crowd)
	for range crowd {
		go func() {
			channelOne(ops / crowd)
			wg.Done()
		}()
	}
	wg.Wait()
}

func skynetNode(first, leaves uint64, out *uint64, wg *sync.WaitGroup) {
	if leaves == 1 {
		*out = first
		wg.Done()
		return
	}
	var sums [10]uint64
	var children sync.WaitGroup
	children.Add(10)
	each := leaves / 10
	for child := range uint64(10) {
		go skynetNode(first+child*each, each, &sums[child], &children)
	}
	children.Wait()
	for _, sum := range sums {
		*out += sum
	}
	wg.Done()
}

func skynet(ops int) {
	leaves := uint64(1)
	for n := ops; n >= 10; n /= 10 {
		leaves *= 10
	}
	var sum uint64
	var wg sync.WaitGroup
	wg.Add(1)
	go skynetNode(0, leaves, &sum, &wg)
	wg.Wait()
	if sum != leaves*(leaves-1)/2 {
		panic("another sum")
	}
}

func fib(n uint64, out *uint64, wg *sync.WaitGroup) {
	defer wg.Done()
	if n < 2 {
		*out = n
		return
	}
	var one, other uint64
	var children sync.WaitGroup
	children.Add(2)
	go fib(n-1, &one, &children)
	go fib(n-2, &other, &children)
	children.Wait()
	*out = one + other
}

func fibonacci(ops int) {
	n, want := uint64(25), uint64(75_025)
	if ops != 242_785 {
		n, want = 15, 610
	}
	var number uint64
	var wg sync.WaitGroup
	wg.Add(1)
	go fib(n, &number, &wg)
	wg.Wait()
	if number != want {
		panic("another number")
	}
}

const lockers = 64

func contended(ops int) {
	var mutex sync.Mutex
	var wg sync.WaitGroup
	wg.Add(lockers)
	for range lockers {
		go func() {
			for turn := range ops / lockers {
				mutex.Lock()
				if turn%8 == 0 {
					runtime.Gosched()
				}
				mutex.Unlock()
			}
			wg.Done()
		}()
	}
	wg.Wait()
}

func spread(ops int) {
	var wg sync.WaitGroup
	wg.Add(ops)
	work := func() {
		burn(5 * time.Microsecond)
		wg.Done()
	}
	for range ops {
		go work()
	}
	wg.Wait()
}

func behind(c *cell) outcome {
	hold := pick(c, 50*time.Millisecond, 20*time.Millisecond)
	turns := pick(c, 20, 3)
	before := used()
	var worst []float64
	for range turns {
		var most atomic.Int64
		var wg sync.WaitGroup
		wg.Add(100)
		spawned := time.Now()
		for range 100 {
			go func() {
				took := time.Since(spawned).Nanoseconds()
				for {
					was := most.Load()
					if took <= was || most.CompareAndSwap(was, took) {
						break
					}
				}
				wg.Done()
			}()
		}
		burn(hold)
		wg.Wait()
		worst = append(worst, float64(most.Load())/1e6)
	}
	out := single(median(worst), uint64(turns), used().since(before), []extra{{"worst", "ms", slices.Max(worst)}})
	out.Best, out.Batches = slices.Min(worst), turns
	return out
}

// timeouts: what waits for a yield with a limit of time. There is nothing to select on but the timer, so it is armed
// and stopped.
func timeouts(ops int) {
	var wg sync.WaitGroup
	wg.Add(crowd)
	late := func() { panic("it ends in time") }
	for range crowd {
		go func() {
			for range ops / crowd {
				timer := time.AfterFunc(10*time.Second, late)
				runtime.Gosched()
				timer.Stop()
			}
			wg.Done()
		}()
	}
	wg.Wait()
}

func timersBulk(c *cell) outcome {
	n := pick(c, 1_000_000, 1_000)
	longest := pick(c, time.Second, 50*time.Millisecond)
	rng := rand.New(rand.NewPCG(7, 7))
	late := make([]float64, n)
	var wg sync.WaitGroup
	wg.Add(n)
	before := used()
	for i := range n {
		sleep := time.Duration(rng.Float64() * float64(longest))
		go func() {
			due := time.Now().Add(sleep)
			time.Sleep(sleep)
			late[i] = max(0, time.Since(due).Seconds()*1e3)
			wg.Done()
		}()
		if i%64 == 63 {
			runtime.Gosched()
		}
	}
	wg.Wait()
	cost := used().since(before)
	distribution := quantiles(late)
	extras := []extra{{"p50", "ms", at(distribution, 0.5)}, {"max", "ms", at(distribution, 1)}}
	out := single(at(distribution, 0.99), uint64(n), cost, extras)
	out.Distribution = distribution
	return out
}

func naps(sleep time.Duration, n int) outcome {
	took := make([]float64, 0, n)
	before := used()
	for range n {
		start := time.Now()
		time.Sleep(sleep)
		took = append(took, time.Since(start).Seconds()*1e6)
	}
	cost := used().since(before)
	distribution := quantiles(took)
	extras := []extra{{"p99", "µs", at(distribution, 0.99)}, {"max", "µs", at(distribution, 1)}}
	out := single(at(distribution, 0.5), uint64(n), cost, extras)
	out.Distribution = distribution
	return out
}

func idleReceiving(c *cell) outcome {
	return idle(pick(c, 100_000, 1_000), func() {
		channel := make(chan uint64, 1)
		<-channel
	})
}

// allowed is how many of so many connections the process may have open. Go has raised its limit by itself.
func allowed(connections int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		fail("getrlimit", err)
	}
	return min(connections, int(limit.Max)-100)
}

// chunk is `CHUNK` of `load.rs` in `bench/src`.
const chunk = 64

// connect has so many connections made by another process to a server whose goroutines wait for bytes, until it is told
// to release them.
func connect(c *cell, n int) (release func()) {
	var reading atomic.Int64
	goOn := make(chan struct{}, n/chunk+1)
	address := listen(func(listener net.Listener) {
		accepted := 0
		for {
			conn, err := listener.Accept()
			if err != nil {
				fail("accept", err)
			}
			accepted++
			if accepted%chunk == 0 {
				goOn <- struct{}{}
			}
			go func() {
				reading.Add(1)
				buf := make([]byte, echoBytes)
				// The end of the connection, or an error, when the other process ends.
				_, _ = conn.Read(buf)
			}()
		}
	})
	command := exec.Command(c.bench, "--hold", address, strconv.Itoa(n))
	input, err := command.StdinPipe()
	if err != nil {
		fail("the other process", err)
	}
	if err := command.Start(); err != nil {
		fail("the other process", err)
	}
	for range n / chunk {
		<-goOn
		if _, err := input.Write([]byte{'x'}); err != nil {
			fail("the other process", err)
		}
	}
	for reading.Load() < int64(n) {
		runtime.Gosched()
	}
	return func() {
		input.Close()
		// How it ends is of no interest any more.
		_ = command.Wait()
	}
}

// idleConnected is what a connection costs that waits: its goroutine's stack, and what it has on the heap.
func idleConnected(c *cell) outcome {
	n := allowed(pick(c, 10_000, 20))
	runtime.GC()
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	rss, before := procStatus("VmRSS"), used()
	release := connect(c, n)
	cost := used().since(before)
	resident := procStatus("VmRSS") - rss
	runtime.ReadMemStats(&is)
	release()
	per := func(value uint64) float64 { return float64(value) / float64(n) }
	live := (is.HeapAlloc + is.StackInuse) - (was.HeapAlloc + was.StackInuse)
	extras := []extra{{"resident", "B/connection", per(resident * 1024)}, {"connections", "", float64(n)}}
	out := single(per(live), uint64(n), cost, extras)
	allocs := per(is.Mallocs - was.Mallocs)
	out.AllocsPerOp = &allocs
	return out
}

func idleAsleep(c *cell, ticks bool) outcome {
	tasks, connections := pick(c, 10_000, 100), allowed(pick(c, 1_000, 5))
	last := pick(c, 2*time.Second, 100*time.Millisecond)
	for range tasks {
		go time.Sleep(time.Hour)
	}
	if ticks {
		go func() {
			for {
				time.Sleep(last / 2)
			}
		}()
	}
	release := connect(c, connections)
	time.Sleep(pick(c, 500*time.Millisecond, 20*time.Millisecond))
	before := used()
	time.Sleep(last)
	cost := used().since(before)
	release()
	perSecond := func(value float64) float64 { return value / last.Seconds() }
	switches := perSecond(float64(cost.Voluntary + cost.Involuntary))
	return single(perSecond(float64(cost.CPUNs)/1e3), 1, cost, []extra{{"switches", "/s", switches}})
}
