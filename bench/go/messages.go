package main

// The counterparts of `messages.rs` and `mutex.rs` in `bench/src/scenarios`, and of `spawn_blocking` in `blocking.rs`.

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

const senders = 13

func funnel(capacity int) func(ops int) {
	return func(ops int) {
		messages := make(chan uint64, capacity)
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
}

const rigs = 61

func funnels(ops int) {
	var wg sync.WaitGroup
	one := funnel(100)
	for range rigs {
		wg.Go(func() { one(ops / rigs) })
	}
	wg.Wait()
}

const (
	nodes = 13
	balls = 7
)

func pinball(ops int) {
	var wg sync.WaitGroup
	for rig := range uint64(rigs) {
		wg.Go(func() { pinballRig(rig, uint64(ops/(rigs*balls))) })
	}
	wg.Wait()
}

// pinballRig: a ball is the number of hops it has left.
func pinballRig(rig, hops uint64) {
	var channels [nodes]chan uint64
	for i := range channels {
		channels[i] = make(chan uint64, balls)
	}
	end := make(chan struct{}, balls)
	var wg sync.WaitGroup
	for i, channel := range channels {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(rig, uint64(i)))
			for left := range channel {
				if left == 0 {
					end <- struct{}{}
				} else {
					channels[rng.IntN(nodes)] <- left - 1
				}
			}
		})
	}
	for i := range balls {
		channels[i] <- hops - 1
	}
	for range balls {
		<-end
	}
	for _, channel := range channels {
		close(channel)
	}
	wg.Wait()
}

// mutex is sync.Mutex, Go's own.
func mutex(c *cell, work time.Duration) outcome {
	each := pick(c, 1_000, 32)
	var unfair []float64
	batch := func(int) {
		var mutex sync.Mutex
		var wg sync.WaitGroup
		took := make([]float64, lockers)
		start := time.Now()
		for i := range lockers {
			wg.Go(func() {
				for turn := 1; turn <= each; turn++ {
					mutex.Lock()
					if work > 0 {
						burn(work)
					}
					mutex.Unlock()
					if turn%16 == 0 {
						runtime.Gosched()
					}
				}
				took[i] = time.Since(start).Seconds()
			})
		}
		wg.Wait()
		unfair = append(unfair, slices.Max(took)/slices.Min(took))
	}
	out := batches(batch, lockers*each, lockers*each)(c)
	out.Extras = []extra{{"last task after", "times the first", median(unfair)}}
	return out
}

// blockingCalls has a goroutine for each call. Nobody needs to tell Go what blocks: in the kernel it sees that by
// itself. That one has returned is said quickest over a channel, that many have by a WaitGroup; either serves all calls,
// as nothing is in flight between some and the next.
func blockingCalls(atOnce int, call func()) func(ops int) {
	if atOnce == 1 {
		return func(ops int) {
			returned := make(chan struct{}, 1)
			called := func() {
				call()
				returned <- struct{}{}
			}
			for range ops {
				go called()
				<-returned
			}
		}
	}
	return func(ops int) {
		var returned sync.WaitGroup
		called := func() {
			call()
			returned.Done()
		}
		for range ops / atOnce {
			returned.Add(atOnce)
			for range atOnce {
				go called()
			}
			returned.Wait()
		}
	}
}

func callEmpty() {}

func callComputing() { burn(10 * time.Microsecond) }

func callSleeping() { block(time.Millisecond) }
