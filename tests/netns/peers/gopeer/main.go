// Command gopeer is a net/http server or client for the tests of the data path: standard library only, so that it
// builds offline. Each client verb prints one JSON object.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	verbs := map[string]func([]string) (any, error){
		"serve": serve, "get": get, "post": post, "cancel": cancel, "deadline": deadline,
		"stream": stream, "early": early, "trailers": trailers,
	}
	result, err := verbs[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

// ── Server ──────────────────────────────────────────────────────────────────────────────────────────────────────────

// events remembers what became of each request to /slow, by its id.
type events struct {
	sync.Mutex
	byID map[string]string
}

func (e *events) set(id, what string) {
	e.Lock()
	defer e.Unlock()
	e.byID[id] = what
}

func (e *events) get(id string) string {
	e.Lock()
	defer e.Unlock()
	return e.byID[id]
}

func serve(arguments []string) (any, error) {
	seen := &events{byID: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host := r.RemoteAddr[:strings.LastIndex(r.RemoteAddr, ":")]
		json.NewEncoder(w).Encode(map[string]string{"client": strings.Trim(host, "[]"), "proto": r.Proto, "host": r.Host})
	})
	mux.HandleFunc("/digest", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		size, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %s %s", size, hex.EncodeToString(sum.Sum(nil)), r.Trailer.Get("X-Sum"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("id")
		io.Copy(io.Discard, r.Body)
		seen.set(id, "begun")
		select {
		case <-r.Context().Done():
			seen.set(id, "cancelled: "+r.Context().Err().Error())
		case <-time.After(20 * time.Second):
			seen.set(id, "never cancelled")
		}
	})
	mux.HandleFunc("/event", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, seen.get(r.URL.Query().Get("id")))
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		// The next line is sent only when the client has confirmed the last one: nothing on the way may wait for more.
		id := r.URL.Query().Get("id")
		for number := 0; number < 5; number++ {
			fmt.Fprintf(w, "line %d\n", number)
			w.(http.Flusher).Flush()
			for seen.get(id) != strconv.Itoa(number) {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(time.Millisecond):
				}
			}
		}
	})
	mux.HandleFunc("/confirm", func(w http.ResponseWriter, r *http.Request) {
		seen.set(r.URL.Query().Get("id"), r.URL.Query().Get("line"))
	})
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "body")
		w.Header().Set("X-Sum", "42")
	})
	return nil, http.ListenAndServe(arguments[0], mux)
}

// ── Client ──────────────────────────────────────────────────────────────────────────────────────────────────────────

var client = &http.Client{Timeout: 10 * time.Second}

func fetch(request *http.Request) (string, *http.Response, error) {
	response, err := client.Do(request)
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), response, err
}

func text(url string) string {
	request, _ := http.NewRequest("GET", url, nil)
	body, _, err := fetch(request)
	if err != nil {
		return "error: " + err.Error()
	}
	return body
}

// get URL N: N requests, one after the other.
func get(arguments []string) (any, error) {
	count, _ := strconv.Atoi(arguments[1])
	reused := 0
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if info.Reused {
			reused++
		}
	}}
	last := ""
	for number := 0; number < count; number++ {
		request, _ := http.NewRequest("GET", arguments[0], nil)
		body, response, err := fetch(request.WithContext(httptrace.WithClientTrace(context.Background(), trace)))
		if err != nil {
			return nil, err
		}
		if response.StatusCode != 200 {
			return nil, fmt.Errorf("%s: %s", response.Status, body)
		}
		last = body
	}
	return map[string]any{"body": last, "reused": reused}, nil
}

// post URL BYTES FRAMING: a body of a known length, or chunked with a trailer.
func post(arguments []string) (any, error) {
	size, _ := strconv.Atoi(arguments[1])
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	sum := sha256.Sum256(body)
	var reader io.Reader = bytes.NewReader(body)
	if arguments[2] == "chunked" {
		reader = struct{ io.Reader }{reader} // hides the length
	}
	request, _ := http.NewRequest("POST", arguments[0]+"/digest", reader)
	if arguments[2] == "chunked" {
		request.Trailer = http.Header{"X-Sum": {"trailing"}}
	}
	answer, _, err := fetch(request)
	return map[string]any{"answer": answer, "sum": hex.EncodeToString(sum[:])}, err
}

func waitFor(what string, condition func() bool) error {
	for deadline := time.Now().Add(5 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited 5 s in vain for %s", what)
		}
	}
	return nil
}

// cancel URL ID METHOD: the context is cancelled once the server has begun; prints what either side was told.
func cancel(arguments []string) (any, error) {
	url, id := arguments[0], arguments[1]
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	request, _ := http.NewRequestWithContext(ctx, arguments[2], url+"/slow?id="+id, strings.NewReader("body"))
	outcome := make(chan error, 1)
	go func() {
		_, _, err := fetch(request)
		outcome <- err
	}()
	if err := waitFor("the server to begin", func() bool { return text(url+"/event?id="+id) == "begun" }); err != nil {
		return nil, err
	}
	stop()
	err := <-outcome
	waitFor("the server to be told", func() bool { return text(url+"/event?id="+id) != "begun" })
	return map[string]any{"client": errors.Is(err, context.Canceled), "server": text(url + "/event?id=" + id)}, nil
}

// deadline URL ID: the context's deadline passes while the server works.
func deadline(arguments []string) (any, error) {
	url, id := arguments[0], arguments[1]
	ctx, stop := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer stop()
	request, _ := http.NewRequestWithContext(ctx, "GET", url+"/slow?id="+id, nil)
	_, _, err := fetch(request)
	waitFor("the server to be told", func() bool { return strings.HasPrefix(text(url+"/event?id="+id), "cancelled") })
	return map[string]any{
		"client": errors.Is(err, context.DeadlineExceeded), "server": text(url + "/event?id=" + id),
	}, nil
}

// stream URL ID: reads line by line, and confirms each.
func stream(arguments []string) (any, error) {
	url, id := arguments[0], arguments[1]
	response, err := client.Get(url + "/stream?id=" + id)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	lines := []string{}
	buffer := make([]byte, 100)
	for {
		size, err := response.Body.Read(buffer)
		if size > 0 {
			lines = append(lines, string(buffer[:size]))
			text(fmt.Sprintf("%s/confirm?id=%s&line=%d", url, id, len(lines)-1))
		}
		if err == io.EOF {
			return map[string]any{"lines": lines}, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// early URL: the server answers before it has read the body.
func early(arguments []string) (any, error) {
	request, _ := http.NewRequest("POST", arguments[0]+"/refuse", bytes.NewReader(make([]byte, 1<<20)))
	request.Header.Set("Expect", "100-continue")
	client.Transport = &http.Transport{ExpectContinueTimeout: 5 * time.Second}
	body, response, err := fetch(request)
	if err != nil {
		return nil, err
	}
	return map[string]any{"status": response.StatusCode, "body": body}, nil
}

// trailers URL: prints the trailer of a chunked answer.
func trailers(arguments []string) (any, error) {
	request, _ := http.NewRequest("GET", arguments[0]+"/trailers", nil)
	body, response, err := fetch(request)
	if err != nil {
		return nil, err
	}
	return map[string]any{"body": body, "trailer": response.Trailer.Get("X-Sum")}, nil
}
