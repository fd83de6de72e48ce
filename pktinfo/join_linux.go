package pktinfo

// prepareJoined fills headers from w.ms[w.n:], one for each message or for
// each run of messages that UDP_SEGMENT can make from one write. Iovec i always
// belongs to message i, so a run is a row of iovecs.
func (w *writer) prepareJoined(b *batch) (k int, err error) {
	ms := w.ms[w.n:min(w.n+batchSize, len(w.ms))]
	for i := 0; i < len(ms); k++ {
		m := &ms[i]
		local, err := w.c.check(m)
		if err != nil {
			return k, err
		}
		if m.N > m.Segment && m.Segment > 0 && !w.c.cuts(m) {
			if k == 0 {
				w.apart = 1
				return w.prepareApart(b)
			}
			return k, nil
		}
		run := w.c.run(ms[i:])
		segment := 0
		switch {
		case run > 1:
			segment = m.N
		case m.N > m.Segment:
			segment = m.Segment
		}
		if err := w.c.head(b, k, m, local, segment); err != nil {
			return k, err
		}
		b.headers[k].Hdr.Iov = &b.vectors[i]
		b.headers[k].Hdr.SetIovlen(run)
		b.done[k] = uint8(run)
		for range run {
			b.vector(i, ms[i].Buf[:ms[i].N])
			i++
		}
	}
	return k, nil
}

// cuts tells whether the kernel is to cut m.
func (c *Conn) cuts(m *Message) bool {
	return m.N <= maxJoined && m.Segment <= int(c.joinable.Load()) && (m.N+m.Segment-1)/m.Segment <= maxSegments
}

// run returns how many of ms can leave as one write: equal sizes, only the last
// may be shorter, and none empty, since an empty end would vanish.
func (c *Conn) run(ms []Message) int {
	first := &ms[0]
	if first.Segment > 0 || first.N == 0 || first.N > int(c.joinable.Load()) {
		return 1
	}
	total := first.N
	for i := 1; i < len(ms) && i < maxSegments; i++ {
		m := &ms[i]
		total += m.N
		if m.Segment > 0 || m.N <= 0 || m.N > first.N || m.N > len(m.Buf) || total > maxJoined || m.Addr != first.Addr || m.TrafficClass != first.TrafficClass {
			return i
		}
		if m.N < first.N {
			return i + 1
		}
	}
	return min(len(ms), maxSegments)
}

// prepareApart fills a header for each datagram of w.ms[w.n:w.n+w.apart], from
// w.off on in the first: the kernel would not cut them.
func (w *writer) prepareApart(b *batch) (k int, err error) {
	off := w.off
	for i := w.n; i < w.n+w.apart && k < batchSize; k++ {
		m := &w.ms[i]
		local, err := w.c.check(m)
		if err != nil {
			return k, err
		}
		if err := w.c.head(b, k, m, local, 0); err != nil {
			return k, err
		}
		end := m.N
		if m.Segment > 0 && off+m.Segment < m.N {
			end = off + m.Segment
		}
		b.vector(k, m.Buf[off:end])
		b.done[k] = 0
		if off = end; end == m.N {
			b.done[k] = 1
			off = 0
			i++
		}
	}
	return k, nil
}
