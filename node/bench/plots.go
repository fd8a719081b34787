package bench

import "context"

func (s *stage) plots(ctx context.Context, dir string) error { return nil }
