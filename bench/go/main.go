// Go beside gmp: one cell of the bench, in Go. `bench/src/peers/go.rs` builds this program and starts it for each cell;
// what it prints is the JSON of `CellReport` in `bench/src/cell.rs`.
//
//  1. Each scenario does what the one of the same name in `bench/src/scenarios` does, in the form that is Go's own and
//     best: a WaitGroup where others join handles, a goroutine that computes or blocks where others have a poll.
//  2. GOMAXPROCS is the number of processors of the cell; everything else, the garbage collector too, has its defaults.
//  3. Load generators are those of the bench, in processes of their own: `-bench` is its program.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// cell says how a scenario is to be run.
type cell struct {
	procs   int
	quick   bool
	bench   string // The program of the bench.
	loadCPU int    // The CPU for the load generator, or -1.
	row     string // The script that makes wrk ask sixteen times in a row.
}

// extra is a figure beside the main one.
type extra struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// outcome is what a scenario measured in one cell.
type outcome struct {
	Median       float64      `json:"median"`
	Best         float64      `json:"best"`
	Batches      int          `json:"batches"`
	Ops          uint64       `json:"ops"`
	Usage        usage        `json:"usage"`
	AllocsPerOp  *float64     `json:"allocs_per_op"`
	Extras       []extra      `json:"extras"`
	Distribution [][2]float64 `json:"distribution"`
}

// report is what the program prints.
type report struct {
	Outcome    outcome `json:"outcome"`
	RSSPeakKiB uint64  `json:"rss_peak_kib"`
	Threads    uint64  `json:"threads"`
	RanOn      int     `json:"ran_on"`
}

func single(value float64, ops uint64, used usage, extras []extra) outcome {
	return outcome{Median: value, Best: value, Batches: 1, Ops: ops, Usage: used, Extras: extras, Distribution: [][2]float64{}}
}

func pick[T any](c *cell, full, quick T) T {
	if c.quick {
		return quick
	}
	return full
}

var scenarios = map[string]func(c *cell) outcome{
	"spawn-inside":           batches(spawnMany, 10_000, 200),
	"spawn-outside":          batches(spawnMany, 10_000, 200),
	"spawn-detached":         batches(spawnDetached, 10_000, 200),
	"spawn-16b":              batches(spawnSized[[16]byte], 2_000, 100),
	"spawn-256b":             batches(spawnSized[[256]byte], 2_000, 100),
	"spawn-1k":               batches(spawnSized[[1024]byte], 2_000, 100),
	"spawn-outside-2":        batches(spawnOutside(2), 100_000, 800),
	"spawn-outside-8":        batches(spawnOutside(8), 100_000, 800),
	"spawn-outside-busy":     spawnOutsideBusy,
	"yield-10k":              batches(yieldCrowd, 100_000, 10_000),
	"channel-10k":            batches(channelCrowd, 50_000, 10_000),
	"skynet":                 batches(skynet, 111_111, 1_111),
	"fib":                    batches(fibonacci, 242_785, 1_973),
	"mpsc-funnel-1":          batches(funnel(1), 26_000, 260),
	"mpsc-funnel":            batches(funnel(100), 26_000, 260),
	"mpsc-61-funnels":        batches(funnels, 79_300, 793),
	"pinball":                batches(pinball, 85_400, 854),
	"mutex-own":              func(c *cell) outcome { return mutex(c, 0) },
	"mutex-own-100ns":        func(c *cell) outcome { return mutex(c, 100*time.Nanosecond) },
	"spawn-blocking":         batches(blockingCalls(1, callEmpty), 1_024, 64),
	"spawn-blocking-10us":    batches(blockingCalls(1, callComputing), 1_024, 64),
	"spawn-blocking-1ms":     batches(blockingCalls(1, callSleeping), 4, 1),
	"spawn-blocking-64":      batches(blockingCalls(64, callEmpty), 1_024, 64),
	"spawn-blocking-64-10us": batches(blockingCalls(64, callComputing), 1_024, 64),
	"spawn-blocking-64-1ms":  batches(blockingCalls(64, callSleeping), 256, 64),
	"mutex-64":               batches(contended, 12_800, 512),
	"spread":                 batches(spread, 10_000, 200),
	"behind":                 behind,
	"timeout":                batches(timeouts, 300_000, 10_000),
	"timers-bulk":            timersBulk,
	"sleep-50us":             func(c *cell) outcome { return naps(50*time.Microsecond, pick(c, 2_000, 20)) },
	"sleep-1ms":              func(c *cell) outcome { return naps(time.Millisecond, pick(c, 300, 5)) },
	"idle-receiving":         idleReceiving,
	"idle-asleep":            func(c *cell) outcome { return idleAsleep(c, false) },
	"idle-ticking":           func(c *cell) outcome { return idleAsleep(c, true) },
	"idle-connected":         idleConnected,
	"chained-spawn":          batches(chained, 1_000, 100),
	"yield-1":                batches(yieldOne, 10_000, 200),
	"yield-200":              batches(yieldMany, 20_000, 600),
	"ping-pong":              batches(pingPong, 1_000, 100),
	"channel-1":              batches(channelOne, 5_000, 100),
	"channel-64":             batches(channelMany, 6_400, 320),
	"timer-churn":            batches(timerChurn, 10_000, 200),
	"idle-pending":           idlePending,
	"idle-sleeping":          idleSleeping,
	"echo-1":                 func(c *cell) outcome { return echoClosed(c, 1, "--load") },
	"echo-64":                func(c *cell) outcome { return echoClosed(c, 64, "--load") },
	"echo-1000":              func(c *cell) outcome { return echoClosed(c, pick(c, 1_000, 100), "--load") },
	"echo-skewed":            func(c *cell) outcome { return echoClosed(c, 64, "--skew") },
	"echo-churn":             func(c *cell) outcome { return echoClosed(c, 32, "--churn") },
	"echo-steady":            echoRate,
	"http-hello-1":           func(c *cell) outcome { return httpHello(c, serveHello, "-c1", false) },
	"http-hello":             func(c *cell) outcome { return httpHello(c, serveHello, "-c64", false) },
	"http-hello-256":         func(c *cell) outcome { return httpHello(c, serveHello, "-c256", false) },
	"http-pipelined":         func(c *cell) outcome { return httpHello(c, serveHello, "-c64", true) },
	"hello-1":                func(c *cell) outcome { return httpHello(c, serveByHand, "-c1", false) },
	"hello-64":               func(c *cell) outcome { return httpHello(c, serveByHand, "-c64", false) },
	"hello-pipelined":        func(c *cell) outcome { return httpHello(c, serveByHand, "-c64", true) },
	"late-block":             func(c *cell) outcome { return lateTimer(c, block) },
	"late-burn":              func(c *cell) outcome { return lateTimer(c, burn) },
	"late-burst":             lateBurst,
	"late-block-echo":        func(c *cell) outcome { return lateEcho(c, block) },
	"late-burn-echo":         func(c *cell) outcome { return lateEcho(c, burn) },
	"http-steady":            func(c *cell) outcome { return httpRate(c, 0, nil, 0) },
	"http-burn":              func(c *cell) outcome { return httpRate(c, 2, burn, 2*time.Millisecond) },
	"http-block":             func(c *cell) outcome { return httpRate(c, 8, block, 50*time.Millisecond) },
	"http-block-1x":          func(c *cell) outcome { return httpRate(c, c.procs, block, 50*time.Millisecond) },
}

// countThreads is how many threads run goroutines at once: rounds of goroutines that compute until `procs` of them were
// inside together. One that the kernel took its CPU from stays inside while others run, so more than GOMAXPROCS is no
// news.
func countThreads(procs int) int {
	var inside, most atomic.Int64
	giveUp := time.Now().Add(5 * time.Second)
	for {
		var wg sync.WaitGroup
		for range 4 * procs {
			wg.Go(func() {
				now := inside.Add(1)
				for {
					was := most.Load()
					if now <= was || most.CompareAndSwap(was, now) {
						break
					}
				}
				until := time.Now().Add(500 * time.Microsecond)
				for time.Now().Before(until) && most.Load() < int64(procs) {
				}
				inside.Add(-1)
			})
		}
		wg.Wait()
		if seen := int(most.Load()); seen >= procs || time.Now().After(giveUp) {
			return min(seen, runtime.GOMAXPROCS(0))
		}
	}
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "gmp-bench-go: %s: %v\n", what, err)
	os.Exit(1)
}

func main() {
	var c cell
	name := flag.String("scenario", "", "which to run")
	flag.IntVar(&c.procs, "procs", 1, "GOMAXPROCS")
	flag.BoolVar(&c.quick, "quick", false, "tiny sizes")
	flag.StringVar(&c.bench, "bench", "", "the program of the bench")
	flag.StringVar(&c.row, "row", "", "the script for requests in a row")
	flag.IntVar(&c.loadCPU, "load-cpu", -1, "the CPU for the load generator")
	flag.Parse()
	runtime.GOMAXPROCS(c.procs)
	run, ok := scenarios[*name]
	if !ok {
		fmt.Fprintf(os.Stderr, "gmp-bench-go: no scenario is called %q\n", *name)
		os.Exit(2)
	}
	out := run(&c)
	rss := procStatus("VmHWM")
	ranOn := countThreads(c.procs)
	text, err := json.Marshal(report{out, rss, procStatus("Threads"), ranOn})
	if err != nil {
		fail("the report", err)
	}
	fmt.Println(string(text))
}
