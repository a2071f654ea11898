package main

// The counterparts of `fan.rs` in `bench/src/scenarios`, and of the larger ones in the files beside it.

import (
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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

func spawnLarge(ops int) {
	var wg sync.WaitGroup
	wg.Add(ops)
	for number := range ops {
		var state [1024]byte
		state[7] = byte(number)
		go func(state [1024]byte) {
			if state[7] == 255 && state[8] == 1 {
				sink.Add(1)
			}
			wg.Done()
		}(state)
	}
	wg.Wait()
}

// spawnOutside8 has eight goroutines in place of the eight threads: there is no outside.
func spawnOutside8(ops int) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { spawnMany(ops / 8) })
	}
	wg.Wait()
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

const senders = 13

func funnel(ops int) {
	messages := make(chan uint64, 100)
	var wg sync.WaitGroup
	wg.Add(senders)
	for range senders {
		go func() {
			for number := range uint64(ops / senders) {
				messages <- number
			}
			wg.Done()
		}()
	}
	for range ops {
		<-messages
	}
	wg.Wait()
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
	hold := pick(c, 50*time.Millisecond, 5*time.Millisecond)
	turns := pick(c, 5, 1)
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

// timeouts: what waits for a yield with a limit of time. There is nothing to select on but the timer, so it is armed and stopped.
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
	return idle(c, func() {
		channel := make(chan uint64, 1)
		<-channel
	})
}

// connect makes so many connections to a server whose goroutines wait for bytes, and gives their other ends.
func connect(n int) []net.Conn {
	var reading atomic.Int64
	address := listen(func(listener net.Listener) {
		for {
			conn, err := listener.Accept()
			if err != nil {
				fail("accept", err)
			}
			go func() {
				reading.Add(1)
				buf := make([]byte, echoBytes)
				// The end of the connection, or an error, when the process ends.
				_, _ = conn.Read(buf)
			}()
		}
	})
	ends := make([]net.Conn, 0, n)
	for range n {
		end, err := net.Dial("tcp", address)
		if err != nil {
			fail("connect", err)
		}
		ends = append(ends, end)
	}
	for reading.Load() < int64(n) {
		runtime.Gosched()
	}
	return ends
}

func idleAsleep(c *cell) outcome {
	tasks, connections := pick(c, 10_000, 100), pick(c, 100, 5)
	last := pick(c, 2*time.Second, 100*time.Millisecond)
	for range tasks {
		go time.Sleep(time.Hour)
	}
	ends := connect(connections)
	time.Sleep(pick(c, 500*time.Millisecond, 20*time.Millisecond))
	before := used()
	time.Sleep(last)
	cost := used().since(before)
	runtime.KeepAlive(ends)
	perSecond := func(value float64) float64 { return value / last.Seconds() }
	switches := perSecond(float64(cost.Voluntary + cost.Involuntary))
	return single(perSecond(float64(cost.CPUNs)/1e3), 1, cost, []extra{{"switches", "/s", switches}})
}
