package replicator

import "sync"

// lane runs jobs one after the other, in the order in which they came, beside
// the goroutine that hands them in. It has a goroutine only while it has jobs.
type lane struct {
	wg *sync.WaitGroup // counts the goroutine

	mu      sync.Mutex // guards below
	jobs    []func()
	running bool
}

// do queues a job and returns at once.
func (l *lane) do(job func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs = append(l.jobs, job)
	if !l.running {
		l.running = true
		l.wg.Go(l.run)
	}
}

func (l *lane) run() {
	for {
		l.mu.Lock()
		jobs := l.jobs
		l.jobs = nil
		if len(jobs) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for _, job := range jobs {
			job()
		}
	}
}
