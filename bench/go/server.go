package main

// The counterparts of `echo.rs`, `http.rs`, `late.rs`, `tail.rs` and `server.rs` in `bench/src/scenarios`. The HTTP
// server is net/http, the standard library's.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// hogs are goroutines that hold their thread for a time, again and again.
type hogs struct {
	stop  atomic.Bool
	polls atomic.Int64
	wg    sync.WaitGroup
}

func (h *hogs) start(count int, hold func(time.Duration), each time.Duration) {
	for range count {
		h.wg.Go(func() {
			for !h.stop.Load() {
				hold(each)
				h.polls.Add(1)
				runtime.Gosched()
			}
		})
	}
}

func (h *hogs) end() {
	h.stop.Store(true)
	h.wg.Wait()
}

// block holds the thread in the kernel, which time.Sleep would not.
func block(each time.Duration) {
	left := syscall.NsecToTimespec(each.Nanoseconds())
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}

func burn(each time.Duration) {
	for start := time.Now(); time.Since(start) < each; {
	}
}

const period = 5 * time.Millisecond

// stretch is `STRETCH` of `bench/src/rate.rs`.
const stretch = 250 * time.Millisecond

func holdTime(c *cell) time.Duration {
	return pick(c, 200*time.Millisecond, 10*time.Millisecond)
}

func lateTimer(c *cell, hold func(time.Duration)) outcome {
	each := holdTime(c)
	heart := beat(6 * each)
	before := used()
	var beside hogs
	beside.start(c.procs, hold, each)
	all := <-heart
	cost := used().since(before)
	beside.end()
	return all.outcome(cost)
}

func lateBurst(c *cell) outcome {
	steps := pick(c, 12_000_000, 120_000)
	lasting, every := pick(c, 5*stretch, 4*period), pick(c, stretch, 2*period)
	heart := beat(lasting)
	before := used()
	var bursts sync.WaitGroup
	bursts.Go(func() {
		start := time.Now()
		for number := time.Duration(0); ; number++ {
			time.Sleep(number*every - time.Since(start))
			if time.Since(start) >= lasting {
				return
			}
			var burst sync.WaitGroup
			for range 8 * c.procs {
				burst.Go(func() { compute(steps) })
			}
			burst.Wait()
		}
	})
	all := <-heart
	cost := used().since(before)
	bursts.Wait()
	return all.outcome(cost)
}

var computed atomic.Uint64

func compute(steps int) {
	number := uint64(1)
	for range steps {
		number ^= number << 13
		number ^= number >> 7
		number ^= number << 17
	}
	computed.Store(number)
}

// beats is how late each came, in milliseconds, and the worst of each stretch.
type beats struct{ late, worst []float64 }

func beat(lasting time.Duration) <-chan beats {
	const none = -1.0
	heart := make(chan beats)
	go func() {
		// What is left of the time after the last whole stretch belongs to it.
		all := beats{worst: slices.Repeat([]float64{none}, int(max(1, lasting/stretch)))}
		for start := time.Now(); time.Since(start) < lasting; {
			due := time.Now().Add(period)
			time.Sleep(period)
			late := max(0, time.Since(due).Seconds()*1e3)
			all.late = append(all.late, late)
			worst := &all.worst[min(int(due.Sub(start)/stretch), len(all.worst)-1)]
			*worst = max(*worst, late)
		}
		// A stretch in which none was due, for the one before came after its end, says nothing of itself.
		all.worst = slices.DeleteFunc(all.worst, func(worst float64) bool { return worst == none })
		heart <- all
	}()
	return heart
}

func (all beats) outcome(cost usage) outcome {
	return lateOutcome(median(all.worst), quantiles(all.late), cost, []extra{{"beats", "", float64(len(all.late))}})
}

func lateEcho(c *cell, hold func(time.Duration)) outcome {
	each := holdTime(c)
	report, cost, _ := atRate(c, serveEcho, c.procs, hold, each, "echo", 1, 200, 6*each)
	return lateOutcome(report.UsualP999us/1e3, report.ms(), cost, report.answers())
}

func lateOutcome(usual float64, distribution [][2]float64, cost usage, further []extra) outcome {
	extras := append([]extra{
		{"p50", "ms", at(distribution, 0.5)},
		{"p99", "ms", at(distribution, 0.99)},
		{"worst of all", "ms", at(distribution, 1)},
	}, further...)
	out := single(usual, 1, cost, extras)
	out.Distribution = distribution
	return out
}

func echoRate(c *cell) outcome {
	report, cost, _ := atRate(c, serveEcho, 0, nil, 0, "echo", 64, 20_000, pick(c, 1250*time.Millisecond, 100*time.Millisecond))
	extras := []extra{
		{"p50", "us", at(report.QuantilesUs, 0.5)},
		{"p99", "us", at(report.QuantilesUs, 0.99)},
		{"p99.9 of all", "us", at(report.QuantilesUs, 0.999)},
		{"max", "us", at(report.QuantilesUs, 1)},
	}
	extras = append(extras, report.answers()...)
	extras = append(extras, extra{"generator p99", "us late", report.LagP99us})
	out := single(report.UsualP999us, max(report.inAll(), 1), cost, extras)
	out.Distribution = report.QuantilesUs
	return out
}

func httpRate(c *cell, count int, hold func(time.Duration), each time.Duration) outcome {
	lasting := pick(c, 2500*time.Millisecond, 250*time.Millisecond)
	report, cost, polls := atRate(c, serveHello, count, hold, each, "http", 64, 4_000, lasting)
	distribution := report.ms()
	extras := []extra{
		{"p50", "ms", at(distribution, 0.5)},
		{"p99", "ms", at(distribution, 0.99)},
		{"p99.9 of all", "ms", at(distribution, 0.999)},
		{"max", "ms", at(distribution, 1)},
	}
	extras = append(extras, report.answers()...)
	extras = append(extras, extra{"generator p99", "ms late", report.LagP99us / 1e3})
	if count > 0 {
		extras = append(extras, extra{"hogs", "polls/s", polls})
	}
	out := single(report.UsualP999us/1e3, max(report.inAll(), 1), cost, extras)
	out.Distribution = distribution
	return out
}

// rateReport is `RateReport` of `bench/src/rate.rs`.
type rateReport struct {
	Answered       uint64       `json:"answered"`
	Unanswered     uint64       `json:"unanswered"`
	WarmUpAnswered uint64       `json:"warm_up_answered"`
	QuantilesUs    [][2]float64 `json:"quantiles_us"`
	UsualP999us    float64      `json:"usual_p999_us"`
	LagP99us       float64      `json:"lag_p99_us"`
}

// inAll is `in_all` of `bench/src/scenarios/server.rs`.
func (r rateReport) inAll() uint64 {
	return r.Answered + r.WarmUpAnswered
}

// answers is `answers` of `bench/src/scenarios/server.rs`.
func (r rateReport) answers() []extra {
	return []extra{
		{"unanswered", "of those due after the warm-up", float64(r.Unanswered)},
		{"answered", "of these", float64(r.Answered)},
		{"answers in all", "", float64(r.inAll())},
	}
}

func (r rateReport) ms() [][2]float64 {
	out := make([][2]float64, len(r.QuantilesUs))
	for i, q := range r.QuantilesUs {
		out[i] = [2]float64{q[0], q[1] / 1e3}
	}
	return out
}

// atRate runs a server, and beside it the generator at a constant rate and, once that is ready, the hogs.
func atRate(c *cell, serve func(net.Listener), count int, hold func(time.Duration), each time.Duration,
	protocol string, connections, perSecond int, lasting time.Duration) (rateReport, usage, float64) {
	address := listen(serve)
	before := used()
	command := exec.Command(c.bench, "--rate", protocol, address, strconv.Itoa(connections), strconv.Itoa(perSecond),
		strconv.FormatInt(lasting.Milliseconds(), 10))
	pipe, err := command.StdoutPipe()
	if err != nil {
		fail("the generator", err)
	}
	if err := c.startLoad(command); err != nil {
		fail("the generator", err)
	}
	stdout := bufio.NewReader(pipe)
	if line, err := stdout.ReadString('\n'); err != nil || line != "ready\n" {
		fail("the generator failed", err)
	}
	var beside hogs
	start := time.Now()
	beside.start(count, hold, each)
	text, err := io.ReadAll(stdout)
	if err != nil {
		fail("the generator's output", err)
	}
	if err := command.Wait(); err != nil {
		fail("the generator failed", err)
	}
	cost := used().since(before)
	polls := float64(beside.polls.Load()) / time.Since(start).Seconds()
	beside.end()
	var report rateReport
	if err := json.Unmarshal(text, &report); err != nil {
		fail("the generator's report", err)
	}
	return report, cost, polls
}

func listen(serve func(net.Listener)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail("listen", err)
	}
	go serve(listener)
	return listener.Addr().String()
}

const echoBytes = 64

// serveEcho: net sets TCP_NODELAY by itself.
func serveEcho(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail("accept", err)
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, echoBytes)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

const readBytes = 4096

var (
	requestLine = []byte("GET / HTTP/1.1\r\n")
	headEnd     = []byte("\r\n\r\n")
	answer      = []byte("HTTP/1.1 200 OK\r\ncontent-length: 13\r\ncontent-type: text/plain\r\n\r\nHello, World!")
)

// serveByHand is `hello.rs` of `bench/src`.
func serveByHand(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail("accept", err)
		}
		go func() {
			defer conn.Close()
			buf, begun := make([]byte, readBytes), 0
			var answers []byte
			for begun < len(buf) {
				n, err := conn.Read(buf[begun:])
				if err != nil {
					return
				}
				text := buf[:begun+n]
				answers = answers[:0]
				for {
					head := bytes.Index(text, headEnd)
					if head < 0 {
						break
					}
					if !bytes.HasPrefix(text, requestLine) {
						return
					}
					answers = append(answers, answer...)
					text = text[head+len(headEnd):]
				}
				begun = copy(buf, text)
				if _, err := conn.Write(answers); err != nil {
					return
				}
			}
		}()
	}
}

var hello = []byte("Hello, World!")

func serveHello(listener net.Listener) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		// What a client does not want any more is lost, as with the other servers.
		_, _ = w.Write(hello)
	})
	fail("serve", http.Serve(listener, handler))
}

// startLoad starts the command on the CPU that is meant for it.
func (c *cell) startLoad(command *exec.Cmd) error {
	if c.loadCPU < 0 {
		return command.Start()
	}
	// A child inherits the CPUs of the thread that starts it. That thread is not used again: it ends with the goroutine.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		var mask [16]uint64
		mask[c.loadCPU/64] = 1 << (c.loadCPU % 64)
		_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
		if errno != 0 {
			fmt.Fprintf(os.Stderr, "gmp-bench-go: cannot pin to CPU %d: %v\n", c.loadCPU, errno)
		}
		started <- command.Start()
	}()
	return <-started
}

// loadReport is `LoadReport` of `bench/src/load.rs`.
type loadReport struct {
	Requests  uint64    `json:"requests"`
	PerSecond []float64 `json:"per_second"`
	P50us     float64   `json:"p50_us"`
	P99us     float64   `json:"p99_us"`
	MaxUs     float64   `json:"max_us"`
}

// generate runs a generator to its end and gives what it printed and what this process, the server, used meanwhile.
func (c *cell) generate(command *exec.Cmd) (string, usage) {
	var text strings.Builder
	command.Stdout = &text
	before := used()
	if err := c.startLoad(command); err != nil {
		fail("the generator", err)
	}
	if err := command.Wait(); err != nil {
		fail("the generator failed", err)
	}
	return text.String(), used().since(before)
}

func echoClosed(c *cell, connections int, generator string) outcome {
	address := listen(serveEcho)
	ms := pick(c, 350, 30)
	text, cost := c.generate(exec.Command(c.bench, generator, address, strconv.Itoa(connections), strconv.Itoa(ms)))
	var load loadReport
	if err := json.Unmarshal([]byte(text), &load); err != nil {
		fail("the generator's report", err)
	}
	extras := []extra{{"p50", "us", load.P50us}, {"p99", "us", load.P99us}, {"max", "us", load.MaxUs}}
	out := single(median(load.PerSecond), load.Requests, cost, extras)
	out.Best, out.Batches = slices.Max(load.PerSecond), len(load.PerSecond)
	return out
}

func httpHello(c *cell, serve func(net.Listener), connections string, inARow bool) outcome {
	address := listen(serve)
	args := []string{"-t1", connections, "-d1", "--timeout", "20s", "--latency"}
	if inARow {
		args = append(args, "-s", c.row)
	}
	text, cost := c.generate(exec.Command("wrk", append(args, "http://"+address+"/")...))
	if strings.Contains(text, "Socket errors") || strings.Contains(text, "Non-2xx") {
		fail("wrk", fmt.Errorf("%s", text))
	}
	field := func(label string) string {
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), label); ok {
				return strings.TrimSpace(value)
			}
		}
		fail("wrk printed no "+label, fmt.Errorf("%s", text))
		return ""
	}
	number := func(text string) float64 {
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			fail("wrk", err)
		}
		return value
	}
	micros := func(label string) float64 {
		took, err := time.ParseDuration(field(label))
		if err != nil {
			fail("wrk", err)
		}
		return float64(took.Nanoseconds()) / 1e3
	}
	var requests float64
	for line := range strings.Lines(text) {
		if strings.Contains(line, " requests in ") {
			requests = number(strings.Fields(line)[0])
		}
	}
	if requests == 0 {
		fail("wrk printed no count of requests", fmt.Errorf("%s", text))
	}
	extras := []extra{}
	if !inARow {
		extras = append(extras, extra{"p50", "us", micros("50%")}, extra{"p99", "us", micros("99%")})
	}
	return single(number(field("Requests/sec:")), uint64(requests), cost, extras)
}
